"""How a claim is measured, as frozen records: what is asked of the prompts, and what is compared with what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

from circuitdsl.circuit.changes import Chain, Member
from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.criteria import Matters, Test
from circuitdsl.measurements.nulls import Nulls
from circuitdsl.measurements.peers import Peers
from circuitdsl.measurements.requests import EdgeRequest, PatchRequest, PathRequest, Request, Subgraph

#: what numbers are compared with, prompt by prompt: an unpatched run scored by the task's metric, or another request
Base = Literal["clean", "corrupt"] | Request

#: stands for random sequences, where a claim has no task
RANDOM = ""


@dataclass(frozen=True, slots=True)
class Part:
    """What tests are run on: the whole, one member under `each`, or one check of several.

    Attributes:
        label: names the part among others; empty for a claim's only one.
        base: what is taken from the request's numbers, prompt by prompt, so many `times`; None leaves them as they are.
        null: what `matters` compares the effect with; compared with the same run as the request.
        draws: draws the null anew when it is known which features fire, where it is made of features.
        other: the same patch without its MLPs, for via-MLP edges.
        rival: the patch that `stronger than` names, edges, a path or nodes.
        tests: the part's own; empty for those of the claim.
        peers: the circuits that the request's is ranked among, on the first prompts; None without a rank.
        called: what its effect is called, where it has a name of its own.
    """

    label: str
    request: Request
    base: Base | None = None
    null: tuple[PatchRequest, ...] = ()
    draws: Nulls | None = None
    other: EdgeRequest | None = None
    rival: PatchRequest | None = None
    tests: tuple[Test, ...] = ()
    peers: Peers | None = None
    called: str = ""
    times: float = 1.0

    @property
    def requests(self) -> tuple[Request, ...]:
        """What must be measured for it, its null apart."""
        condition = self.request.under if self.request.effect else None  # what two knock-outs under it start from
        others = (self.base, self.other, self.rival, condition)
        return (self.request, *(other for other in others if isinstance(other, Request)))

    @property
    def null_requests(self) -> tuple[Request, ...]:
        """What must be measured on the null's prompts, where it has one: the null, and what that is compared with.

        Of the peers these are the last round's.
        """
        if self.peers:
            return (*self.null, *self.peers.drawn, *self.requests)
        return (*self.null, *self.requests[1:]) if self.null else ()


@dataclass(frozen=True, slots=True)
class ClaimPlan:
    """How one claim is measured on one task.

    Attributes:
        members: pairs, or chains of a path, that are reported one by one.
        extremes: what the claim is about, where that is the smallest over these sets of parts of the largest figure in
            each, signs aside (incompleteness: one set; minimality: one for each member).
        circuit: what the claim keeps of the model, where it is about the whole circuit.
        called: what the figure of a whole circuit is called.
    """

    claim: Claim
    task: str
    parts: tuple[Part, ...]
    members: tuple[tuple[Member | Chain, EdgeRequest | PathRequest], ...] = ()
    extremes: tuple[tuple[int, ...], ...] = ()
    circuit: Subgraph | None = None
    called: str = ""

    @property
    def requests(self) -> tuple[Request, ...]:
        """Everything but the nulls; equal requests once."""
        found = [request for part in self.parts for request in part.requests]
        found += [request for _, request in self.members]
        return tuple(dict.fromkeys(found))

    @property
    def asked(self) -> tuple[Request, ...]:
        """All that is measured look by look: the requests, and whether each of the terms that they replace changes."""
        requests = self.requests
        return tuple(dict.fromkeys((*requests, *(term for request in requests for term in request.terms))))

    @property
    def null_requests(self) -> tuple[Request, ...]:
        """What must be measured on the claim's first prompts, for its nulls and rivals."""
        return tuple(request for part in self.parts for request in part.null_requests)

    def tests(self, part: Part) -> tuple[Test, ...]:
        return part.tests or self.claim.tests


def by_itself(request: Request) -> Part:
    """A figure of a comparison without the other; a patch, compared with the run that it patches."""
    if not request.effect:
        return Part("", request)
    alone = patched("", cast(PatchRequest, request))
    return replace(alone, base=request.under or alone.base)


def patched(label: str, request: PatchRequest, claim: Claim | None = None, nulls: Nulls | None = None) -> Part:
    """A patch, compared with the run that it patches, and with its null where the claim asks for that."""
    part = Part(label, request, "clean" if request.direction == "noise" else "corrupt")
    if claim is None or nulls is None or not any(isinstance(test, Matters) for test in claim.tests):
        return part
    nodes = {node for node, _ in (*request.writes, *request.reads)}
    draws = nulls.about(nodes) if any(node.of for node in nodes) else None
    return replace(part, null=nulls.of_patch(request), draws=draws)
