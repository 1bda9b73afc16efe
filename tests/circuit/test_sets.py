"""Sets that depend on the model: `0.*`, every head of a layer, and `all`, every node that can stand there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from circuitdsl.api import Spec, loads
from circuitdsl.circuit.shapes import ANY_MODEL, ModelShape
from circuitdsl.errors import UserError
from circuitdsl.verify.session import Session
from circuitdsl.verify.verify import verify

HEAD = """circuit sets
model "pocket"
task ioi(corrupt = abc, prompts = 32)
heads mover = 2.4 2.5   at END
"""
SMALL = ModelShape("small", 2, 3)


def spec(*lines: str, head: str = HEAD, **how) -> Spec:
    return loads(head + "\n".join(lines) + "\n", **how)


def said(*lines: str, **how) -> list[str]:
    found = spec(*lines, **how).diagnostics
    return [f"{each.span.line}:{each.span.column} {each.message}" for each in found if each.severity == "error"]


HEADS = [f"{layer}.{head}" for layer in range(4) for head in range(8)]
MLPS = [f"m{layer}" for layer in range(4)]
BOTH = [name for layer in range(4) for name in (*HEADS[8 * layer : 8 * layer + 8], MLPS[layer])]


@pytest.mark.parametrize(
    ("line", "nodes"),
    [
        ("heads x = 0.* 1.2", [*HEADS[:8], "1.2"]),
        ("heads x = all", HEADS),
        ("mlps x = all - m1", ["m0", "m2", "m3"]),
        ("nodes x = all", BOTH),
        ("nodes x = all - 0.* - (1.* 2.* 3.*)", MLPS),
        ("heads x = all - mover", [name for name in HEADS if name not in ("2.4", "2.5")]),
        ("heads x = mover + 2.*", ["2.4", "2.5", "2.0", "2.1", "2.2", "2.3", "2.6", "2.7"]),
    ],
)
def test_a_group_of_a_set(line: str, nodes: list[str]) -> None:
    (circuit,) = spec(line).circuits
    assert [str(node) for node in circuit.groups[-1].nodes] == nodes
    assert circuit.counted == (4, 8)


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("expect attention(all, END -> IO) <= 9%", f"expect attention({' '.join(HEADS)}, END -> IO) <= 9%"),
        ("expect knockout(all - 0.*)", f"expect knockout({' '.join(BOTH[8:])})"),
        ("expect attribution(3.*) > 0", f"expect attribution({' '.join(HEADS[24:])}) > 0"),
        ("0.* -> 3.*.q at END", f"({' '.join(HEADS[:8])}) -> ({' '.join(HEADS[24:])}).q at END"),
        ("each all -> logits at END", f"each ({' '.join(BOTH)}) -> logits at END"),
        ("0.3 -> all.k at S2", f"0.3 -> ({' '.join(HEADS[8:])}).k at S2"),
        (
            "channel each 0.* -> 1.0.q : composition >= 0.1",
            f"channel each ({' '.join(HEADS[:8])}) -> 1.0.q : composition >= 0.1",
        ),
        ("trace 3.1 END -> IO includes 0.*", f"trace 3.1 END -> IO includes {' '.join(HEADS[:8])}"),
    ],
)
def test_a_set_is_the_list_of_its_nodes(line: str, same: str) -> None:
    """Wherever nodes are listed: at the positions that each has when it is named alone."""
    (one,), (other,) = (spec(text).circuits for text in (line, same))
    assert one.claims[-1].measurement == other.claims[-1].measurement


def test_verbs_of_interventions_take_sets() -> None:
    text = "intervention x\n  scale 0.* by 0\n  replace all - mover with mean\n  expect accuracy >= 5%"
    (circuit,) = spec(text).circuits
    scale, replaced = circuit.interventions[0].verbs
    assert [str(node) for node in scale.nodes] == HEADS[:8]
    assert [str(site.node) for site in replaced.sites] == [name for name in BOTH if name not in ("2.4", "2.5")]


def test_the_checks_of_a_role_take_sets() -> None:
    text = 'role mover "x"\n  expect attention(all - self, END -> IO) <= 50%\nexpect role(mover)'
    (circuit,) = spec(text).circuits
    assert said(text) == []
    looks, *_ = circuit.claims[-1].measurement.checks
    assert [str(head) for head in looks.measurement.heads] == [name for name in HEADS if name != "2.4"]


def test_a_group_of_ones_own_that_is_called_all() -> None:
    (circuit,) = spec("heads all = 1.1 1.2   at END", "expect knockout(all)").circuits
    assert [str(site.node) for site in circuit.claims[-1].measurement.patch.sites] == ["1.1", "1.2"]
    assert circuit.counted is None


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("heads x = 2.* - 2.*", "5:11 2.* - 2.* is empty"),
        ("heads x = all - all", "5:11 all - all is empty"),
        ("heads x = all - m1", "5:17 all does not hold m1"),
        ("mlps x = all - mover", "5:16 all does not hold 2.4, 2.5"),
        ("mlps x = 0.*", "5:10 0.0 is a head, and the group lists mlps (8 of its members do not fit)"),
        ("heads x = 4.*", "5:11 pocket has 4 layers: 4.* does not exist (the last is 3.7)"),
        ("heads x = 2.* 2.1", "5:15 2.1 is named twice: it is in 2.*"),
        ("heads x = 2.1 2.*", "5:15 2.1 is named twice: it is in 2.*"),
        ("heads x = 01.*", "5:11 '01.*' has a leading zero; did you mean '1.*'?"),
        ("heads x = all-mover", "5:11 write blanks around '-': all - mover"),
        ("heads x = *", "5:11 '*' is no node here"),
    ],
)
def test_sets_that_are_wrong(line: str, error: str) -> None:
    found = said(line)
    assert len(found) == 1 and found[0].startswith(error)


@pytest.mark.parametrize(
    ("model", "message", "help"),
    [
        ("", "which nodes 'all' is depends on the model, and none is named", "--model"),
        ('model "me/nothing"', "which nodes 'all' is depends on the model, and the size of me/nothing is", "config"),
        ('model "./nothing"', "there is no model directory", ""),
    ],
)
def test_a_model_whose_size_is_not_known(model: str, message: str, help: str) -> None:
    """It is said once, at the first set, and not where the model itself was reported as wrong."""
    found = spec("heads x = all", "heads y = 0.*", head=HEAD.replace('model "pocket"', model)).diagnostics
    (error,) = [each for each in found if each.severity == "error"]
    assert error.message.startswith(message) and help in (error.help or "")


def test_the_size_is_that_of_the_model_that_is_given() -> None:
    text = "expect knockout(all)"
    assert spec(text, model="gpt2").circuits[0].counted == (12, 12)
    (circuit,) = spec(text, head=HEAD.replace("2.4 2.5", "1.2"), model="me/nothing", shape=SMALL).circuits
    assert circuit.counted == (2, 3)


def test_a_spec_for_any_model_has_all_that_it_names() -> None:
    (circuit,) = spec("heads x = all - 11.9", "expect knockout(x)", model=ANY_MODEL).circuits
    assert circuit.claims and circuit.counted == (13, 11)


def test_a_set_counted_in_a_model_of_another_size_is_not_verified() -> None:
    with Session("pocket", cache=False) as session:
        (circuit,) = spec("expect knockout(all) : lowers").circuits
        model, by_task = session.source_of(circuit), session.prompts_by_task(circuit)
        with pytest.raises(UserError, match="of another size"):
            verify(replace(circuit, counted=(4, 7)), model, by_task)
