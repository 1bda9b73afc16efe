"""What a kind of measurement says about itself beyond the language: what is run for it, and how its numbers are read.

A kind is one class, in one file. The phases (plan, measure, weigh, report, falsify, mutate) ask it and know no kind by
name. This package imports no torch: code that reads tensors is named as text (`Request.reader`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from circuitdsl.circuit.changes import Intervention
from circuitdsl.circuit.claims import Claim
from circuitdsl.circuit.criteria import Exceeds, Moves
from circuitdsl.circuit.measurement import Expected, Measurement
from circuitdsl.measurements.plan import Base, ClaimPlan, Part
from circuitdsl.measurements.requests import ChangedRequest, Request, patch_request

if TYPE_CHECKING:
    from circuitdsl.measurements.nulls import Nulls
    from circuitdsl.report.report import MemberResult
    from circuitdsl.verdict.decide import Decision

#: what decides a claim: runs of the task's prompts; a sample of prompts of its own; the weights; or the spec alone
Source = Literal["runs", "own sample", "weights", "text"]
#: the decisions on the parts of a claim, by the part's label
ByLabel = Mapping[str, Sequence["Decision"]]
#: the numbers of each request, prompt by prompt
Values = Mapping[Request, Sequence[float]]


class Kind(Measurement):
    """A measurement with all that verifying it takes.

    Attributes:
        decided_by: what decides a claim of this kind.
        many_figures: whether its parts have figures of several kinds, so that reports name the one that they show.
        judge: of what weights or text decide, the function that does: "module:name".
    """

    __slots__ = ()

    decided_by: ClassVar[Source] = "runs"
    judge: ClassVar[str] = ""
    many_figures: ClassVar[bool] = False

    @property
    def in_family(self) -> bool:
        """Whether wrong verdicts on it are limited together with those on others (Holm's procedure)."""
        return self.decided_by in ("runs", "own sample")

    def sample_size(self, members: int) -> int:
        """How many prompts its own sample has, where the family has so many members."""
        return 0

    @classmethod
    def besides(cls) -> tuple[Expected, ...]:
        """What is measured of any circuit where everything is asked for, with bounds that leave it open."""
        return ()

    def part(self, claim: Claim, nulls: Nulls) -> Part:
        """What a claim is tested on where it is about one figure."""
        raise NotImplementedError(f"{type(self).__name__} has no single figure")

    def compared(self, claim: Claim, nulls: Nulls) -> Part:
        """The same, less the other figure where it is compared with one."""
        part = self.part(claim, nulls)
        for test in claim.tests:
            if isinstance(test, Exceeds) and isinstance(test.other, Kind):
                return replace(part, base=test.other.part(claim, nulls).request, times=test.times)
        return part

    def plan(self, claim: Claim, task: str, nulls: Nulls) -> ClaimPlan:
        """How a claim is measured on a task."""
        return ClaimPlan(claim, task, (self.compared(claim, nulls),))

    def protocol_of(self, plan: ClaimPlan) -> dict[str, str]:
        """How it was measured, as reports have it: what is read or patched, in which run, under which condition."""
        protocol, under = plan.parts[0].request.protocol(), plan.claim.under
        if under is None:
            return protocol
        if isinstance(under.effect, Intervention):
            return {**protocol, "run": "changed model", "under": under.text}
        return {**protocol, "run": "patched", "under": under.text.removeprefix("when ")}

    def member_results(self, plan: ClaimPlan, judged: ByLabel, values: Values) -> tuple[MemberResult, ...]:
        """The records of its members, where it has members other than pairs of edges."""
        return ()

    def notes(self) -> tuple[str, ...]:
        """What a reader of the report should know besides."""
        return ()


class Reading(Kind, Request):
    """A measurement that is read off one run, a number for every prompt: what is claimed is what is asked of the run.

    Under a patch it is read off the patched run (`under`), on a changed model off that model's run.
    """

    __slots__ = ()

    positions = Request.positions  # of the claim as of the request

    @property
    def subject(self) -> Hashable:
        """The record with its nodes sorted: the mean over them is the same in any order."""
        own = (name for name in ("heads", "nodes", "sites") if hasattr(self, name))
        return replace(cast(Any, self), **{name: tuple(sorted(getattr(self, name))) for name in own})

    def base(self, claim: Claim) -> Base | None:
        """What its numbers are compared with, prompt by prompt: the run without the condition, where it `moves`."""
        return self if claim.under and any(isinstance(test, Moves) for test in claim.tests) else None

    def part(self, claim: Claim, nulls: Nulls) -> Part:
        change, request = claim.under.effect if claim.under else None, cast(Request, self)
        if isinstance(change, Intervention):
            request = ChangedRequest(self, change)
        elif change is not None:
            request = replace(cast(Any, self), under=patch_request(change))
        return Part("", request, self.base(claim))


def kind_of(claim: Claim) -> Kind:
    """The measurement of a claim, with all that a kind says of it."""
    return cast(Kind, claim.measurement)
