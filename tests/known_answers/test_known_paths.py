"""Paths of models whose circuits are facts: what is true of a path holds, what is false does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from circuitdsl.circuit.nodes import Edge, Position
from tests.drawing import examples
from tests.engine import brute_path
from tests.known_answers.hand_set_claims import KnownClaim, Population, _input, node, spec
from tests.known_answers.hand_set_runs import Tally, sample_bench, verified

#: how many these are
PROMPTS = 5
#: a path: where it starts, and each receiver with its position
Path = tuple[str, tuple[tuple[str, str], ...]]
RIGHT: Path = "0.2", (("1.1.k", "S2"), ("2.3.q", "END"), ("logits", "END"))
GROUPS: Path = "0.2", (("1.1.k 1.5.k", "S2"), ("2.3.q 2.4.q", "END"), ("logits", "END"))
#: one thing is other: the input, the head, the last reader
WRONG: tuple[Path, ...] = (
    ("0.2", (("1.1.v", "S2"), ("2.3.q", "END"), ("logits", "END"))),
    ("0.2", (("1.6.k", "S2"), ("2.3.q", "END"), ("logits", "END"))),
    ("0.2", (("1.1.k", "S2"), ("2.3.k", "END"), ("logits", "END"))),
    ("0.2", (("1.1.k", "S2"), ("2.0.q", "END"), ("logits", "END"))),
    ("0.5", (("1.1.k", "S2"), ("2.3.q", "END"), ("logits", "END"))),
    ("0.2", (("1.1.k", "S2"), ("m2", "END"), ("logits", "END"))),
)


def effect(whole: Population, path: Path) -> float:
    """The effect on some prompts of the population, by brute force: about that of all."""
    first, hops = path
    arrows, senders = [], first.split()
    for receivers, position in hops:
        ends = [_input(receiver) for receiver in receivers.split()]
        arrows.append(frozenset(Edge(node(a), b, Position(position)) for a in senders for b in ends))
        senders = [str(end.node) for end in ends]
    some, changes = range(0, len(whole.data.pairs), len(whole.data.pairs) // PROMPTS), []
    for pair in (whole.data.pairs[i] for i in some):
        clean, corrupt = (torch.tensor(getattr(pair, side)) for side in ("clean_tokens", "corrupt_tokens"))
        at = {e.position: set(pair.positions[e.position.name]) for arrow in arrows for e in arrow}
        with torch.inference_mode():
            row = brute_path.one(whole.model, clean, corrupt, arrows, at)
        changes.append(float(row[list(pair.answers)].mean() - row[list(pair.distractors)].mean()))
    return float((np.asarray(changes) - whole.clean[some]).mean() / whole.gap[some].mean())


def line(path: Path, each: str = "") -> str:
    """A path as a spec has it."""
    first, hops = path
    shown = [first, *(f"({r.replace('.q', '').replace('.k', '')}){r[-2:]}" if " " in r else r for r, _ in hops)]
    return f"path {each}{shown[0]}" + "".join(f" -> {r} at {p}" for r, (_, p) in zip(shown[1:], hops, strict=True))


@pytest.mark.parametrize("kind", examples(("decoy",), ("chain", "decoy")))
def test_true_claims_hold_and_false_ones_do_not(known_model: Callable[[str, int], Population], kind: str) -> None:
    whole = known_model(kind, 96)
    right, groups = effect(whole, RIGHT), effect(whole, GROUPS)
    wrong = [effect(whole, path) for path in WRONG]
    assert groups < right < -0.02
    assert max(map(abs, wrong)) < 0.005
    claims = [
        KnownClaim(f"{line(RIGHT)} : lowers", True, "sign"),
        KnownClaim(f"{line(RIGHT)} : raises", False, "sign"),
        KnownClaim(f"{line(RIGHT)} : negligible", False, "size"),
        KnownClaim(f"{line(RIGHT)} : effect in [{500 * right:.3f}%, {20 * right:.3f}%]", True, "size"),
        KnownClaim(f"{line(RIGHT)} : effect <= {500 * right:.3f}%", False, "size"),
        KnownClaim(f"{line(GROUPS)} : effect <= {20 * groups:.3f}%", True, "size"),
        KnownClaim(f"{line(GROUPS)} : stronger than {line(RIGHT)}", True, "stronger"),
        KnownClaim(f"{line(RIGHT)} : stronger than {line(GROUPS)}", False, "stronger"),
        KnownClaim(f"{line(RIGHT)} : stronger than 0.2 -> 1.1.k at S2", False, "stronger"),
        KnownClaim(f"{line(GROUPS, 'each ')} : effect <= 0.1%", True, "each"),
    ]
    for path in WRONG:
        claims += [KnownClaim(f"{line(path)} : negligible", True, "size")]
        claims += [KnownClaim(f"{line(path)} : {said}", False, "wrong") for said in ("lowers", "raises", "matters")]
    tally = Tally()
    tally.add(claims, verified(spec(whole.model.name, claims), sample_bench(whole, seed=5)))
    assert not tally.wrong
    assert not tally.missed, tally.missed
