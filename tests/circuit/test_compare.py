"""Overlap of two circuits, and what it would be by chance."""

from __future__ import annotations

import io
import itertools
import random

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import spearmanr

from circuitdsl.api import load, loads
from circuitdsl.circuit.claims import Circuit
from circuitdsl.circuit.compare import Overlap, chance, compare, heads_of
from circuitdsl.circuit.nodes import Node
from circuitdsl.report.tables import show_comparison
from circuitdsl.verify.compared import rank_correlation

HEADER = 'model "pocket"\ntask ioi\n'


def circuit(body: str, name: str = "one") -> Circuit:
    spec = loads(f"circuit {name}\n{HEADER}{body}\n")
    assert spec.ok, spec.diagnostics
    return spec.circuits[0]


def test_heads_are_those_of_groups_and_edges_but_not_of_controls() -> None:
    found = circuit(
        "heads a = 0.1 0.2 at END\nheads idle = 3.3 3.4 at END outside\n"
        "a -> 1.0.q\n0.6 -> logits at END\nidle -> logits : negligible"
    )
    assert heads_of(found) == {Node("head", 0, 1), Node("head", 0, 2), Node("head", 1, 0), Node("head", 0, 6)}


def test_overlap_counts_and_shares() -> None:
    first = circuit("heads a = 0.1 0.2 1.0 at END\na -> logits")
    second = circuit("heads b = 0.2 1.0 1.1 2.0 at END\nb -> logits")
    found = compare(first, second, 8)
    assert {str(n) for n in found.heads.shared} == {"0.2", "1.0"}
    assert found.heads.jaccard == pytest.approx(2 / 5)
    assert found.heads.of_first == pytest.approx(2 / 3)
    assert found.edges.jaccard == pytest.approx(2 / 5)
    assert found.by_layer() == {0: (1, 1, 0), 1: (0, 1, 1), 2: (0, 0, 1)}


def test_a_circuit_overlaps_with_itself_wholly() -> None:
    ioi = load("pocket/ioi").circuits[0]
    found = compare(ioi, ioi, 8)
    assert found.heads.jaccard == found.edges.jaccard == found.heads.of_first == 1
    assert not found.disagreements


def test_roles_that_differ_are_named() -> None:
    first = circuit("heads mover = 2.0 2.1 at END\nheads induction = 1.0 at END\nmover -> logits")
    second = circuit("heads negative_mover = 2.0 at END\nheads induction = 1.0 at END\nnegative_mover -> logits")
    found = compare(first, second, 8)
    assert found.disagreements == ((Node("head", 2, 0), "mover", "negative_mover"),)
    assert [str(node) for node, *_ in found.roles] == ["1.0", "2.0"]


def test_shared_heads_of_other_names_are_listed_where_no_row_has_both() -> None:
    first = circuit("heads a = 1.0 1.1 at END\nheads kept = 2.0 at END\na -> logits")
    second = circuit("heads b = 1.1 1.2 at END\nheads kept = 2.0 at END\nb -> logits")
    screen = Console(file=io.StringIO(), width=100)
    show_comparison(compare(first, second, 8), screen)
    show_comparison(compare(first, first, 8), screen)
    said = [line.strip() for line in screen.file.getvalue().splitlines() if "under other names" in line]
    assert said == ["in both circuits, under other names: 1.1"]


def test_a_head_of_two_roles_agrees_with_one_of_both() -> None:
    mover, backup = "heads mover = 2.0 at END", "heads b = 2.0 2.1 at END role backup_mover"
    both, turned = circuit(f"{mover}\n{backup}\nb -> logits"), circuit(f"{backup}\n{mover}\nb -> logits")
    one = circuit(f"{mover}\nmover -> logits")
    assert not compare(both, turned, 8).disagreements
    said = ((Node("head", 2, 0), "backup_mover and mover", "mover"),)
    assert compare(both, one, 8).disagreements == compare(turned, one, 8).disagreements == said


def test_the_chance_level_is_that_of_random_sets_with_the_same_layers() -> None:
    heads = Overlap(
        frozenset(Node("head", layer, head) for layer, head in [(0, 1), (0, 2), (0, 3), (1, 0), (2, 5)]),
        frozenset(Node("head", layer, head) for layer, head in [(0, 2), (0, 3), (1, 0), (1, 4), (3, 0)]),
    )
    found = chance(heads, 8)
    rng, draws, totals, overlaps = random.Random(0), 20_000, [], []
    for _ in range(draws):
        shared = 0
        for a, b in ((3, 2), (1, 2)):
            shared += len(set(rng.sample(range(8), a)) & set(rng.sample(range(8), b)))
        totals.append(shared)
        overlaps.append(shared / (10 - shared))
    assert found.expected == pytest.approx(sum(totals) / draws, abs=0.02)
    assert found.jaccard == pytest.approx(sum(overlaps) / draws, abs=0.005)
    assert found.p == pytest.approx(sum(t >= 3 for t in totals) / draws, abs=0.01)


def test_equal_effects_share_the_mean_of_their_ranks() -> None:
    heads = [Node("head", layer, head) for layer in range(2) for head in range(4)]
    first, second = (np.asarray(values, float) for values in ([3, 1, 1, 2, 5, 5, 5, 0], [2, 2, 0, 1, 4, 3, 3, 3]))
    found = rank_correlation(heads, first, second)
    assert found.rho == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert 0 < found.p < 1


def test_layers_used_whole_are_no_evidence() -> None:
    everything = frozenset(Node("head", 0, head) for head in range(8))
    assert chance(Overlap(everything, everything), 8).p == pytest.approx(1)


def test_pocket_circuits_reuse_what_their_specs_say() -> None:
    names = ("ioi", "colored_objects", "greater_than", "induction", "laundry_list")
    circuits = {name: load(f"pocket/{name}").circuits[0] for name in names}
    above = {
        (a, b)
        for a, b in itertools.combinations(names, 2)
        if (level := compare(circuits[a], circuits[b], 8).chance) and level.exceeded
    }
    assert above == {("ioi", "induction"), ("ioi", "laundry_list")}


def test_an_expectation_puts_no_edge_into_the_circuit() -> None:
    found = circuit("heads a = 0.1 at END\na -> logits\nexpect denoise(2.0 -> logits at END) : effect in [-1%, 1%]")
    assert heads_of(found) == {Node("head", 0, 1)}
