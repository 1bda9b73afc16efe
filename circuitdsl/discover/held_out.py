"""A prompt file's prompts in two parts: what is found on one is checked on the other, which the search has not seen."""

from __future__ import annotations

from dataclasses import dataclass, replace

from circuitdsl.tasks.dataset import Dataset

#: a file with fewer prompts is not split: half of them would decide little
FEWEST = 64


@dataclass(frozen=True, slots=True)
class Parts:
    """What is searched and what is held back for the check.

    Attributes:
        searched: the prompts to search on.
        checked: how many are held back; 0 where there are too few, and the draft is checked on `searched` itself.
        seed: with it, the first `checked` prompts of the file are those held back, so that a spec can ask for them.
        total: how many the file has.
    """

    searched: Dataset
    checked: int
    seed: int
    total: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What a spec says of them."""
        found = len(self.searched.pairs)
        bounds = "its bounds lie well inside what was measured where it was found"
        if not self.checked:
            return (
                f"found on {found} prompts and checked on the same: its file has {self.total}, too few to split",
                f"{bounds}; whether it holds on others is open",
            )
        return (
            f"found on {found} of the {self.total} prompts of its file, and checked on {self.checked} others",
            f"prompts = {self.checked}, seed = {self.seed} are these others; another number or seed mixes them",
            bounds,
        )


def parts(whole: Dataset, prompts: int, most: int) -> Parts:
    """Split all prompts of a file, strata in their shares (`whole` has every beginning so), by the order of its seed.

    Args:
        prompts: how many to search on, at most.
        most: how many to hold back, at most.
    """
    total = len(whole.pairs)
    checked = min(total // 2, most) if total >= FEWEST else 0
    return Parts(replace(whole, pairs=whole.pairs[checked:][:prompts]), checked, whole.seed, total)
