"""`expect fires(name, at = IO) >= 90%`: how often features fire where they act (at END where nothing says)."""

from __future__ import annotations

from dataclasses import dataclass

from circuitdsl.circuit.arguments import group_argument, refuse_others, sort_arguments, value_test
from circuitdsl.circuit.edges import END
from circuitdsl.circuit.measurement import Expected
from circuitdsl.circuit.nodes import ERROR, Site
from circuitdsl.circuit.scope import Scope
from circuitdsl.language import syntax as s
from circuitdsl.language.diagnostics import listing
from circuitdsl.measurements.kept import Kept, values
from circuitdsl.measurements.kind import Reading
from circuitdsl.measurements.requests import READERS, Figure


@dataclass(frozen=True, slots=True)
class Fires(Reading):
    """1 where every one of some features has an activation above 0 at every position, else 0."""

    sites: tuple[Site, ...]

    words = ("fires",)
    reader = f"{READERS}.activation:fires"
    numbers = Figure("fires", hits=True)
    usage = (
        "`fires(FEATURES)`, `fires(t1[17], at = IO)`"
        " | the share of prompts in which every one of the features is above 0"
        " | a share",
    )
    examples = ("expect fires(t1[49], at = END) >= 20%",)
    false_examples = ("expect fires(t1[49], at = END) <= 5%",)
    per_prompt = True

    @classmethod
    def resolve(cls, scope: Scope, expect: s.Expect) -> Expected | None:  # type: ignore[override]
        found = sort_arguments(expect.measurement.arguments)
        given = [s.Place(o.value.span, getattr(o.value, "text", "")) for o in found.options if o.key.text == "at"]
        found.options = [option for option in found.options if option.key.text != "at"]
        right = refuse_others(scope, expect.measurement, found, positions=False, options=False, at=True)
        members = group_argument(scope, expect.measurement, found, "features")
        test = value_test(scope, expect, "share", 0, 1)
        places = scope.places(s.At(found.nodes.span, (*found.at, *given))) if found.sets else None
        if others := [str(node) for node in members or () if not node.of or node.index == ERROR]:
            message = f"fires is said of features such as t1[17], not of {listing(others)}"
            scope.sink.error("E076", message, found.nodes.span)
            return None
        if not right or members is None or test is None or places is None:
            return None
        sites = tuple(Site(node, place) for node, own in members.items() for place in places or own or (END,))
        return cls(sites), (test,)

    def kept(self, n_layers: int) -> Kept:
        return Kept(clean=values(*self.own_writers))
