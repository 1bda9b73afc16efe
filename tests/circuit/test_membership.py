"""What a spec's circuit consists of, and what can be said of the whole of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from circuitdsl.api import loads
from circuitdsl.circuit.claims import membership
from circuitdsl.circuit.criteria import Within
from circuitdsl.measurements.whole_circuit import WholeCircuit
from tests.engine.test_features import random, written

Resolve = Callable[..., Any]

SPEC = """\
circuit x
model "gpt2"
task ioi
task colored = colored_objects
heads mover   = 9.9 9.6 at END
heads copier  = 3.0 at S2
heads both    = mover + copier
heads anywhere = 5.5
heads control = 11.1 at END outside
embed -> copier.v at S1
copier -> mover.q at END : negligible
8.6 -> mover.q at END
2.2 -> 5.5.k at S1+1
11.1 -> logits : lowers
mover -> logits
"""


def test_the_circuit_is_groups_and_claimed_edges(resolved: Resolve) -> None:
    (circuit,), _ = resolved(SPEC)
    whole = membership(circuit)
    assert sorted(f"{site.node} {site.position}" for site in whole.sites) == [
        "2.2 S1+1",  # where it writes into a claimed edge
        "3.0 S2",
        "5.5 *",  # a group without a position
        "8.6 END",
        "9.6 END",
        "9.9 END",
    ]
    assert "3.0 -> 9.9.q at END" not in {str(edge) for edge in whole.edges}  # claimed to be negligible
    assert {"8.6 -> 9.9.q at END", "9.9 -> logits at END", "11.1 -> logits at END"} <= {str(e) for e in whole.edges}
    assert not whole.mlps
    assert {name: len(sites) for name, sites in whole.groups.items()} == {
        "mover": 2,
        "copier": 1,
        "both": 3,
        "anywhere": 1,
    }


@pytest.mark.parametrize("line", ["mlps early = m0 at END", "mlps late = m9 at END outside", "embed -> m0 at S1"])
def test_mlps_count_once_one_is_named(resolved: Resolve, line: str) -> None:
    (circuit,), _ = resolved(SPEC + line + "\n")
    assert membership(circuit).mlps


@pytest.mark.parametrize(
    ("line", "measurement", "test"),
    [
        ("faithfulness >= 120%", WholeCircuit("faithfulness"), Within("effect", 1.2, None, ">= 120%")),
        (
            "faithfulness(keep = edges, ablate = mean, positions = all) in [80%, 110%]",
            WholeCircuit("faithfulness", "edges", "mean", "all"),
            Within("effect", 0.8, 1.1, "in [80%, 110%]"),
        ),
        (
            "faithfulness(form = wang) <= 0.5",
            WholeCircuit("faithfulness", form="wang"),
            Within("delta", None, 0.5, "delta <= 0.5"),
        ),
        (
            "incompleteness(ablate = zero) <= 30%",
            WholeCircuit("incompleteness", ablate="zero"),
            Within("effect", None, 0.3, "<= 30%"),
        ),
        ("minimality >= 1%", WholeCircuit("minimality"), Within("effect", 0.01, None, ">= 1%")),
        ("sufficiency >= 90%", WholeCircuit("sufficiency"), Within("value", 0.9, None, ">= 90%")),
    ],
)
def test_options_and_bounds(resolved: Resolve, line: str, measurement: WholeCircuit, test: Within) -> None:
    (circuit,), found = resolved(SPEC + f"expect {line}\n")
    assert not [d for d in found if d.severity == "error"]
    claim = circuit.claims[-1]
    assert (claim.measurement, claim.tests) == (measurement, (test,))
    assert claim.tasks == ("ioi",)  # the other task has no S1


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("faithfulness >= 0.8", "E080", "did you mean 80%?"),
        ("faithfulness(keep = heads) >= 80%", "E047", "keep is nodes or edges"),
        ("faithfulness(ablation = mean) >= 80%", "E046", "did you mean 'ablate'?"),
        ("sufficiency(form = wang) >= 80%", "E046", "unknown option 'form' of sufficiency"),
        ("faithfulness(keep = edges, keep = nodes) >= 80%", "E051", "given twice"),
        ("faithfulness(mover) >= 80%", "E084", "takes options only"),
        ("faithfulness : lowers", "E083", "takes a relation"),
        ("minimality", "E083", "takes a relation"),
        ("faithfulness(form = wang) <= 20%", "E080", "plain number"),
        ("faithfulness(form = wang) <= -1", "E081", "never below 0"),
        ("sufficiency >= 150%", "E081", "lies between 0% and 100%"),
        ("incompleteness <= -5%", "E081", "never below 0"),
        ("faithfulness >= 80% on colored", "E092", "has no position"),
    ],
)
def test_what_cannot_be_said(resolved: Resolve, line: str, code: str, message: str) -> None:
    _, found = resolved(SPEC + f"expect {line}\n")
    (error,) = [d for d in found if d.severity == "error"]
    assert error.code == code
    assert message in f"{error.message} {error.help}"


def test_a_circuit_of_edges_needs_edges(resolved: Resolve) -> None:
    head = "circuit x\ntask ioi\nheads mover = 9.9 at END\n"
    _, found = resolved(head + "expect faithfulness(keep = edges) >= 80%\n")
    assert [d.code for d in found] == ["E093"]
    _, found = resolved(head + "expect faithfulness >= 80%\n")
    assert not found


@pytest.mark.parametrize(
    "lines",
    [
        "nodes g = m2[u] resid3[u] 0.3[u] at END",
        "m2[u] -> logits at END : lowers",
        "features g = r1[49] r1[error] at END",
        "r1[49] -> logits at END : lowers",
        "nodes g = r1[error] resid2 at END",
        "resid2 -> logits at END : lowers",
        "path resid2 -> 2.4.q at END -> logits : negligible",
        "features g = a1[3] a1[error] at END",
        "a1[3] -> logits at END : lowers",
        "q1[3] -> logits at END : lowers",
    ],
)
def test_parts_along_directions_streams_and_their_features_are_no_members(lines: str, tmp_path: Path) -> None:
    """Naming one changes nothing of the circuit, nor whether MLPs are part of what is ablated."""
    save_file({"s": torch.ones(128)}, tmp_path / "u.safetensors")
    for name, hook in (("a1", "blocks.1.hook_attn_out"), ("q1", "blocks.1.hook_resid_mid")):
        written(tmp_path / name, random(128, 5, 1), hook, hook)
    head = """circuit one
model "pocket"
task ioi
dictionary a1 = sae("a1")
dictionary q1 = sae("q1")
direction u = file("u.safetensors")
dictionary r1 = sae("pocket/saes/resid1")
heads mover = 2.4 2.5 at END
mover -> logits at END : lowers
"""
    (plain,), (named,) = (loads(text, tmp_path / "one.circ").circuits for text in (head, f"{head}{lines}\n"))
    found, wanted = membership(named), membership(plain)
    assert (found.sites, found.edges, found.mlps) == (wanted.sites, wanted.edges, wanted.mlps)
