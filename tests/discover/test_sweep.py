"""Sweeps: each cell is a knock-out of its own, and the map is what the cells are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circuitdsl.api import loads
from circuitdsl.circuit.nodes import EMBED, EVERYWHERE, Node
from circuitdsl.cli import run
from circuitdsl.discover.sweep import Sweep
from circuitdsl.errors import UsageError
from circuitdsl.verify.session import Session

PROMPTS = 24


@pytest.fixture(scope="module")
def session() -> Session:
    return Session("pocket", cache=False)


@pytest.fixture(scope="module")
def streams(session: Session) -> Sweep:
    found: Sweep = session.sweep(task="ioi", prompts=PROMPTS)
    return found


def at(found: Sweep, node: Node, place: str) -> float:
    return next(cell.effect for cell in found.cells if cell.node == node and str(cell.position) == place)


def test_a_cell_is_what_the_claim_measures(session: Session, streams: Sweep) -> None:
    text = f"""circuit one
model "pocket"
task ioi(prompts = {PROMPTS})
expect knockout(resid1 at S2) : effect <= 100%
expect knockout(resid2 at IO) : effect <= 100%
expect knockout(resid0 at IO) : effect <= 100%
expect knockout(0.5 at END) : effect <= 100%
expect denoise(resid0 at IO) : effect <= 200%
"""
    measured = [claim.measured.value for claim in session.verify(loads(text), early_stop=False).claims]
    heads = session.sweep(task="ioi", over="heads", positions=["END"], prompts=PROMPTS)
    back = session.sweep(task="ioi", positions=["IO"], denoise=True, prompts=PROMPTS)
    cells = [at(streams, Node("resid", 1), "S2"), at(streams, Node("resid", 2), "IO"), at(streams, EMBED, "IO")]
    cells += [at(heads, Node("head", 0, 5), "END"), at(back, EMBED, "IO")]
    assert cells == pytest.approx(measured, abs=1e-5)


def test_all_of_a_stream_is_the_corrupt_run(session: Session) -> None:
    """At END, what enters the final norm; and what enters any layer, at all positions together."""
    for denoise, all_of_it in ((False, -1.0), (True, 1.0)):
        found = session.sweep(task="ioi", positions=["*", "END"], denoise=denoise, prompts=PROMPTS)
        for layer in range(found.n_layers + 1):
            node = Node("resid", layer) if layer else EMBED
            assert at(found, node, "*") == pytest.approx(all_of_it, abs=1e-4)
        assert at(found, Node("resid", found.n_layers), "END") == pytest.approx(all_of_it, abs=1e-4)
        assert found.positions[0] == EVERYWHERE


def test_what_nothing_changes_is_0_and_is_not_outlined(streams: Sweep) -> None:
    idle = [cell for cell in streams.cells if cell.ci is None]
    assert idle and all(cell.effect == 0 and not cell.clear for cell in idle)
    assert {(cell.node, str(cell.position)) for cell in idle} >= {(EMBED, "END")}
    assert any(cell.clear for cell in streams.cells)
    low, high = next(cell.ci for cell in streams.cells if cell.clear and cell.ci)
    assert low < high


def test_every_place_is_named_once_in_its_order(session: Session, streams: Sweep) -> None:
    """ANSWER is where IO is, and DISTRACTOR where S is."""
    assert [str(place) for place in streams.positions] == ["S1", "IO", "PLACE", "S2", "OBJECT", "END"]
    every = session.sweep(task="ioi", over="mlps", positions=["all"], prompts=PROMPTS)
    assert [str(place) for place in every.positions[-2:]] == ["END-1", "END"]
    assert every.positions[0].offset == 1 - max(-place.offset + 1 for place in every.positions)
    fewest = min(cell.n for cell in every.cells)
    assert fewest >= 2 and max(cell.n for cell in every.cells) == PROMPTS  # prompts that are too short are left out


def test_positions_may_stand_in_one_text(session: Session) -> None:
    given = ("S2,END", ["S2,", "END"], ("S2", "END"))
    found = [session.sweep(task="ioi", positions=each, prompts=PROMPTS) for each in given]
    assert [[str(place) for place in each.positions] for each in found] == [["S2", "END"]] * 3


def test_too_few_prompts_for_an_interval(session: Session) -> None:
    """Five prompts of a bounded metric tell no gap from 0: there is no interval, and JSON has no NaN."""
    found = session.sweep(task="ioi", metric="prob", positions=["END"], prompts=5)
    cell = next(cell for cell in found.cells if cell.node == Node("resid", 4))
    assert cell.effect == pytest.approx(-1, abs=1e-3) and cell.ci is None and not cell.clear
    json.dumps(found.to_json(), allow_nan=False)
    assert "resid4 at END: effect −100 %, too few prompts for an interval, 5 prompts" in found.svg()


def test_one_command_writes_values_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = tmp_path / "map"
    asked = ["sweep", "pocket/ioi", "--positions", "S2", "END", "--prompts", "24", "-o", str(name)]
    assert run([*asked, "--over", "heads"]) == 0
    body = json.loads((tmp_path / "map.json").read_text())
    assert (body["over"], body["positions"], body["prompts"]) == ("heads", ["S2", "END"], 24)
    assert len(body["cells"]) == 2 * 32 and set(body["cells"][0]) >= {"node", "position", "effect", "ci", "n"}
    assert (tmp_path / "map.svg").read_text().startswith("<svg")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert "Patching heads" in capsys.readouterr().out
    assert run([*asked[:-1], str(tmp_path / "only.svg")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.json", "map.png", "map.svg", "only.svg"]


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"task": "ioi", "positions": ["S3"]}, "no position S3"),
        ({"task": "ioi", "positions": ["s2"]}, "no position s2; did you mean 'S2'"),
        ({"task": "ioi", "positions": [3]}, "no position 3"),
        ({"task": "ioi", "positions": "S2, END+1"}, r"no prompt of the task has a token at END\+1"),
        ({"task": "ioi", "over": "head"}, "not head; did you mean 'heads'"),
        ({}, "no task is named"),
        ({"spec": "pocket/ioi", "task": "greater_than"}, "has no task greater_than"),
        ({"task": "io"}, "io"),
    ],
)
def test_mistakes_are_named(session: Session, how: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        session.sweep(**how)


def test_a_notebook_shows_the_map(streams: Sweep) -> None:
    shown = streams._repr_html_()
    assert shown.startswith("<svg") and "resid2 at IO" in shown
    assert "−100 %" in str(streams)
