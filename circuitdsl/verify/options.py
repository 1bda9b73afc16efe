"""How to verify: the options of a run, in the words of the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace

from circuitdsl.circuit.claims import Circuit, TaskUse
from circuitdsl.errors import UsageError
from circuitdsl.limits import prompts_of, seed_of


@dataclass(frozen=True, slots=True)
class Options:
    """How to verify. Nothing here changes what a claim means.

    Attributes:
        claim: the id or the line of a single claim; it is judged at the level that it has among all of them.
        each_at: judge claims one by one at this level, instead of all together by Holm's procedure.
        generalise: whether verdicts are about `prompts` from the same templates, or about other `templates` (all
            prompts are measured then; see `verdict.samples.by_stratum`).
        early_stop: stop measuring a claim once it is decided.
        full: measure the whole circuit besides, whether or not something is claimed of it.
        memory: bytes that claims without a task may take beside the model; the prompts of tasks have their own limit.
        task, ids: verify only these claims on this task, each at the level that it has among all claims.

    Raises:
        UsageError: a level or a word that is none.
    """

    claim: str | None = None
    each_at: float | None = None
    generalise: str = "prompts"
    early_stop: bool = True
    full: bool = False
    memory: int | None = None
    task: str | None = None
    ids: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.each_at is not None and not 0 < self.each_at < 1:
            raise UsageError(f"each_at = {self.each_at!r} is not a level between 0 and 1")
        if self.generalise not in ("prompts", "templates"):
            raise UsageError(f"generalise = {self.generalise!r} is neither prompts nor templates")

    @property
    def templates(self) -> bool:
        """Whether verdicts are about prompts from other templates."""
        return self.generalise == "templates"

    @property
    def holm(self) -> bool:
        """Whether claims are judged all together."""
        return self.each_at is None

    @property
    def alpha(self) -> float:
        """The level of a claim, or of all claims together."""
        from circuitdsl.verdict.families import FAMILY

        return FAMILY if self.each_at is None else self.each_at


def with_overrides(circuit: Circuit, prompts: int | None = None, seed: int | None = None) -> Circuit:
    """The circuit with another number of prompts and another seed for every task; raises `UsageError`."""
    n, s = prompts_of(prompts), seed_of(seed)

    def changed(use: TaskUse) -> TaskUse:
        return replace(use, prompts=use.prompts if n is None else n, seed=use.seed if s is None else s)

    return replace(circuit, tasks=tuple(map(changed, circuit.tasks)))
