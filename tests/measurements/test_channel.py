"""Channel claims are verified beside others, or alone from weights, and judged without any sampling."""

from __future__ import annotations

import json

import jsonschema
import pytest

from circuitdsl import Session, cli
from circuitdsl.api import loads
from circuitdsl.circuit.criteria import Composed
from circuitdsl.circuit.nodes import Input, Node
from circuitdsl.language.format import format_text
from circuitdsl.measurements.channel import Composition
from circuitdsl.models.weights import weights_of
from circuitdsl.verify.judged import verify_without_model
from tests.schema import schema

HEAD = 'circuit t\nmodel "pocket"\n'


def results(pocket, lines: str):
    spec = loads(HEAD + lines)
    assert spec.ok, [d.message for d in spec.diagnostics]
    return verify_without_model(spec.circuits[0], lambda: weights_of(pocket)).claims


def test_a_channel_is_a_claim_without_a_task() -> None:
    (circuit,) = loads(
        HEAD + "channel each (0.1[3] 1.2) -> 3.4.k : composition rank < 3 and composition z >= -1"
    ).circuits
    (claim,) = circuit.claims
    to = Input(Node("head", 3, 4), "k")
    assert claim.measurement == Composition(((Node("head", 0, 1, 3), to), (Node("head", 1, 2), to)))
    assert claim.tests == (
        Composed("rank", None, 3.0, True, "composition rank < 3"),
        Composed("z", -1.0, None, False, "composition z >= -1"),
    )
    assert (claim.kind, claim.each, claim.tasks) == ("channel", True, ())


def test_bounds_are_as_strict_as_they_are_written(pocket) -> None:
    (found,) = results(pocket, "channel 2.1 -> 3.0.q : composition rank <= 24")
    rank = found.measured.standing.rank
    verdicts = [
        c.verdict
        for c in results(
            pocket,
            f"channel 2.1 -> 3.0.q : composition rank <= {rank}\nchannel 2.1 -> 3.0.q : composition rank < {rank}\n"
            f"channel 2.1 -> 3.0.q : composition rank >= {rank}\nchannel 2.1 -> 3.0.q : composition rank > {rank}\n"
            f"channel 2.1 -> 3.0.q : composition rank in [{rank}, {rank}]\n",
        )
    ]
    assert verdicts == ["holds", "fails", "holds", "fails", "holds"]


def test_each_needs_every_pair_and_a_group_its_mean(pocket) -> None:
    senders = [f"{layer}.{head}" for layer in range(3) for head in range(8)]
    one, two = sorted(
        (results(pocket, f"channel {s} -> 3.0.v : composition >= 0")[0].measured.value, s) for s in senders
    )[:: len(senders) - 1]
    bound = (one[0] + two[0]) / 2 - 0.001
    pair = f"({one[1]} {two[1]}) -> 3.0.v : composition >= {bound:.5f}"
    each, together = results(pocket, f"channel each {pair}\nchannel {pair}\n")
    assert (each.verdict, [m.verdict for m in each.members]) == ("fails", ["fails", "holds"])
    assert each.reason.startswith(f"{one[1]} -> 3.0.v: composition ")
    assert together.verdict == "holds" and together.measured.value == pytest.approx(bound + 0.001)
    assert together.measured.standing.rank is None and [m.verdict for m in together.members] == [None, None]


def test_the_top_of_a_few_is_no_evidence(pocket) -> None:
    found = results(pocket, "".join(f"channel 0.{h} -> 1.0.q : composition above chance\n" for h in range(8)))
    assert {c.verdict for c in found} == {"undecided"} and "null too small" in found[0].reason


def test_exactly_the_top_share_is_above_chance(pocket) -> None:
    lines = [f"channel {layer}.{head} -> 3.0.q : composition above chance\n" for layer in range(3) for head in range(8)]
    found = results(pocket, "".join(lines))
    assert [c.measured.standing.rank for c in found if c.verdict == "holds"] in ([1, 2], [2, 1])
    assert sum(c.verdict == "fails" for c in found) == 22


def test_components_that_are_noise_are_an_error_and_not_a_figure(pocket) -> None:
    (found,) = results(pocket, "channel 0.0 -> 1.0.q : composition z >= 9")
    assert found.verdict == "fails"
    spec = loads('circuit t\nmodel "gpt2"\nchannel 0.0[16] -> 1.0.q : composition z >= 1')
    (found,) = verify_without_model(spec.circuits[0], lambda: weights_of(pocket)).claims
    assert (found.verdict, found.measured) == ("error", None) and "has components 0 to 15" in found.reason


def test_channels_stand_among_other_claims_and_cost_them_nothing(check) -> None:
    plain = "circuit t\ntask ioi(prompts = 64)\nexpect accuracy >= 90%\n0.6 -> logits at END : lowers\n"
    mixed = plain.replace("0.6", "channel 2.4 -> 3.0.q : composition rank <= 24\n0.6")
    alone, both = check(plain), check(mixed)
    assert [(c.id, c.kind, c.task) for c in both.claims] == [
        ("c01", "expect", "ioi"), ("c02", "channel", None), ("c03", "edge", "ioi"),
    ]  # fmt: skip
    assert both.level == alone.level and both.summary["holds"] == 3
    assert both.claims[2].measured == alone.claims[1].measured
    jsonschema.validate(both.to_json(), schema())


def test_channels_are_judged_on_no_model(gpt2_attention, monkeypatch, tmp_path, capsys) -> None:
    """The command reads the attention weights and builds nothing, even where other lines would need a model."""
    monkeypatch.setattr("circuitdsl.models.record.open_model", lambda *_: pytest.fail("a model was built"))
    out = tmp_path / "report.json"
    assert cli.run(["verify", "gpt2-small/channels", "--model", str(gpt2_attention), "-o", str(out)]) == 0
    found = json.loads(out.read_text())
    jsonschema.validate(found, schema())
    assert found["tasks"] == [] and {c["task"] for c in found["claims"]} == {None}
    first = found["claims"][0]
    assert first["measured"]["standing"]["rank"] == 1 and first["measured"]["ci"] is None and first["null"] is None
    assert first["protocol"] == {"read": "weights", "run": "none"}
    spec = tmp_path / "mixed.circ"
    spec.write_text(
        'circuit t\nmodel "gpt2"\ntask ioi\nexpect accuracy >= 90%\nchannel 4.11 -> 5.9.k : composition rank <= 3\n'
    )
    assert cli.run(["verify", str(spec), "--claim", "5", "--model", str(gpt2_attention)]) == 1
    said = capsys.readouterr().out
    assert "weights alone" in said and "rank 56 of 60 does not meet rank <= 3" in said


def test_rotary_queries_are_an_error_and_values_are_fine(stories, tmp_path, capsys) -> None:
    spec = tmp_path / "llama.circ"
    spec.write_text("circuit t\nchannel 0.1 -> 4.2.q : composition z >= 1\nchannel 0.1 -> 4.2.v : composition z <= 9\n")
    assert cli.run(["verify", str(spec), "--model", str(stories)]) == 3
    said = capsys.readouterr().out
    assert "rotary" in said and "1 holds, 1 error" in said


def test_at_a_distance_rotary_queries_and_keys_have_a_channel(stories, tmp_path, capsys) -> None:
    """The figure is that of this distance: what holds at one does not at another."""
    found = {}
    for distance in (0, 1, 5):
        assert cli.run(["channels", str(stories), "--to", "4.2.k", "--distance", str(distance), "--from", "0.1"]) == 0
        said = capsys.readouterr().out
        assert f"into 4.2.k at distance {distance}" in said
        with Session(model=stories) as session:
            upstream = session.channels(["4.2.k"], ["0.1"], distance=distance)
        assert upstream.to_json()["distance"] == distance
        ((_, standings),) = upstream.found.items()
        found[distance] = standings[Node("head", 0, 1)].composition
    bound = (found[0] + found[5]) / 2
    sign = ">=" if found[0] > bound else "<="
    spec = tmp_path / "apart.circ"
    lines = [f"channel 0.1 -> 4.2.k at distance {d} : composition {sign} {bound:.6f}\n" for d in (0, 5)]
    spec.write_text("circuit t\n" + "".join(lines))
    assert cli.run(["verify", str(spec), "--model", str(stories)]) == 1
    assert "1 holds, 1 fails" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("1.0.q at distanc 3", "a channel is at a distance, not at 'distanc'; did you mean 'distance'?"),
        ("1.0.q at distance 2.5", "a distance is a whole number of tokens from 0, not 2.5"),
        ("1.0.q at distance 3%", "a distance is a whole number of tokens from 0, not 3%"),
        ("1.0.q at distance 1e300", "a distance is a whole number of tokens from 0, not 1e300"),
        ("1.0.v at distance 3", "a value is the same at every distance"),
    ],
)
def test_distances_that_mean_nothing(written: str, said: str) -> None:
    spec = loads(HEAD + f"channel 0.1 -> {written} : composition >= 0.1\n")
    (found,) = spec.diagnostics
    assert (found.code, found.message) == ("E115", said)


def test_a_distance_is_formatted_and_read_again() -> None:
    text = HEAD + "channel 0.1 -> 1.0.k at distance 3 : composition >= 0.1\n"
    (claim,) = loads(format_text(text)).circuits[0].claims
    assert claim.measurement.distance == 3
    assert claim.text == "channel 0.1 -> 1.0.k at distance 3 : composition >= 0.1"


@pytest.mark.parametrize("given", ["-1", "x", "1.5"])
def test_a_distance_on_the_command_line_is_a_whole_number(given: str, stories, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.run(["channels", str(stories), "--to", "4.2.k", f"--distance={given}"])
    assert "a whole number from 0" in capsys.readouterr().err
