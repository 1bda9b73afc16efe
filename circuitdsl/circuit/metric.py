"""The metric of a spec, as it is written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Metric:
    """`logit_diff`, `prob_diff`, `logprob`, `accuracy` or `kl`, with its options as written."""

    name: str = "logit_diff"
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        inside = ", ".join(k if v == "" else f"{k} = {v}" for k, v in self.options)
        return f"{self.name}({inside})" if inside else self.name
