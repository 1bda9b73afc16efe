"""Reports made up in any size, with the numbers behind them, and specs that say the same."""

from __future__ import annotations

import numpy as np

from circuitdsl.report.behind import Behind, ClaimNumbers, Pattern, ShownPrompt
from circuitdsl.report.report import (
    ClaimResult,
    Measured,
    MemberResult,
    ModelInfo,
    Null,
    Report,
    SpecInfo,
    TaskResult,
)

GROUPS = 48
LENGTH = 16
WORDS = (" When", " Mary", " and", " John", " went", " to", " the", " store", ",", " gave", " a", " drink")


def spec_of(claims: int, title: str = "A large one") -> str:
    """A spec with so many edges between groups of GPT-2 small's heads."""
    heads = "".join(f"heads g{i} = {i // 4}.{3 * (i % 4)} {i // 4}.{3 * (i % 4) + 1} at END\n" for i in range(GROUPS))
    edges = "".join(f"{text}\n" for text in texts(claims))
    return f'circuit large "{title}"\nmodel "gpt2"\ntask ioi(prompts = 64)\nmetric logit_diff\n\n{heads}\n{edges}'


def texts(claims: int) -> list[str]:
    pairs = ((a, b, port) for a in range(GROUPS) for b in range(GROUPS) if a // 4 < b // 4 for port in "qkv")
    every = sorted(pairs, key=lambda pair: (pair[1] - pair[0], pair))
    return [f"g{a} -> g{b}.{port} at END : lowers" for a, b, port in every[:claims]]


def large(claims: int = 500, tasks: int = 8, prompts: int = 256, seed: int = 0, text: str = "") -> Report:
    """A report of random numbers; `text` is put wherever a report has text of its author."""
    rng = np.random.default_rng(seed)
    names = [f"task{i}{text}" for i in range(tasks)]
    results, numbers = [], []
    for place, claim in enumerate(texts(claims)):
        for name in names:
            values = rng.normal(-0.3 + 0.6 * rng.random(), 0.05 + 0.2 * rng.random(), prompts)
            result, behind = _claim(f"c{place:03}", 60 + place, claim + text, name, values, rng, text)
            results.append(result)
            numbers.append(behind)
    some = rng.integers(len(WORDS), size=(prompts, LENGTH))
    shown = tuple(_prompt([WORDS[i] + text for i in row], text) for row in some)
    rows = tuple(tuple(np.round(rng.dirichlet(np.ones(i + 1)), 3).tolist()) for i in range(LENGTH))
    patterns = tuple(Pattern(name, head, i, rows) for name in names for head in ("0.0", "0.1") for i in range(4))
    return Report(
        spec=SpecInfo(f"large{text}.circ", f"large{text}", "0" * 64),
        model=ModelInfo(f"gpt2{text}", "1" * 64, 12, 12, "cpu", "float32", False),
        tasks=tuple(TaskResult(n, "abc", prompts, 0, "2" * 64, "logit_diff", 4.0, -4.0, 0.99) for n in names),
        claims=tuple(results),
        seconds=12.5,
        behind=Behind(
            "2026-11-30T12:00:00+00:00",
            f"circuitdsl verify{text}",
            dict.fromkeys(names, shown),
            tuple(numbers),
            patterns,
        ),
    )


def _claim(
    name: str, line: int, claim: str, task: str, values: np.ndarray, rng: np.random.Generator, text: str
) -> tuple[ClaimResult, ClaimNumbers]:
    mean, half = float(values.mean()), float(2 * values.std() / len(values) ** 0.5)
    verdict = "holds" if mean + half < -0.01 else "fails" if mean - half > -0.01 else "undecided"
    found = Measured("effect", mean, (mean - half, mean + half), len(values), "gap", -8 * mean, median=mean)
    members = tuple(MemberResult(f"0.{i}{text}", "1.0", "q", "END", mean, None, None) for i in range(2))
    reason = f"effect {100 * mean:.0f} % is {'' if verdict == 'holds' else 'not '}below the margin of 1 %{text}"
    result = ClaimResult(
        name, line, claim, "edge", task, verdict, reason, {"patch": "direct"}, found, Null(0.9, 20), members,
        notes=(f"a note{text}",) if text else (),
        block=f"when x{text}:" if text else None, block_line=1 if text else None,
    )  # fmt: skip
    null = tuple(np.round(rng.normal(0, 0.02, 20), 4).tolist())
    behind = ClaimNumbers(
        name, task, "gap", tuple(range(len(values))), tuple(np.round(values, 5).tolist()),
        ((-float("inf"), -0.01),), null, mean, ("0.0", "0.1"),
    )  # fmt: skip
    return result, behind


def _prompt(tokens: list[str], text: str) -> ShownPrompt:
    corrupt = [token if i % 5 else f" Bob{text}" for i, token in enumerate(tokens)]
    at = {f"IO{text}": (1,), "END": (len(tokens) - 1,)}
    return ShownPrompt(tuple(tokens), tuple(corrupt), at, (tokens[1],), (tokens[3],), (4.0, -4.0), f"ABBA{text}")
