"""`circuitdsl trace`: tables and a picture that say the same as the firings behind them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from circuitdsl.api import load, loads
from circuitdsl.circuit.nodes import Node, Position
from circuitdsl.circuit.traced import Place
from circuitdsl.engine.cut import Cuts, Reach
from circuitdsl.engine.trace import fired, token_names, trace_graph, tracers
from circuitdsl.report.numbers import plain
from circuitdsl.report.tables import shown
from circuitdsl.verify.prompts import make_prompts, prompts_by_task
from circuitdsl.verify.session import with_overrides

HEAD, END, IO = Node("head", 2, 5), Position("END"), Position("IO")


@pytest.fixture(scope="module")
def pairs(pocket):
    (circuit,) = loads('circuit t\nmodel "pocket"\ntask ioi(prompts = 48)\nexpect accuracy >= 9%\n').circuits
    return prompts_by_task(circuit, pocket)["ioi"].pairs


@pytest.fixture(scope="module")
def found(pocket, pairs):
    return trace_graph(pocket, pairs, HEAD, END, IO)


def test_the_graph_counts_each_prompt_once(pocket, pairs, found) -> None:
    starts = [f for _, firings in fired(pocket, pairs, HEAD, [END], [IO]) for f in firings.values()]
    assert (found.prompts, found.firings) == (48, len(starts))
    for side, token in (("destination", "END"), ("source", "IO")):
        expected = Counter(sender for start in starts for sender, _ in start.senders[side])
        mine = {k.sender.head: k for k in found.links if k.receiver == Place(HEAD, "END") and k.side == side}
        assert {head: link.count for head, link in mine.items()} == expected
        assert {link.sender.token for link in mine.values()} == {token}
        best = max(expected, key=expected.__getitem__)
        weights = [value for start in starts for sender, value in start.senders[side] if sender == best]
        assert mine[best].weight == pytest.approx(np.mean(weights))
    size = found.fired[Place(HEAD, "END")]
    assert (size.count, size.dimensions) == (len(starts), pytest.approx(np.mean([len(s.signal) for s in starts])))
    assert found.order.index("IO") < found.order.index("END")


def test_signals_are_counted_by_head_and_token(pocket, pairs, found) -> None:
    """How often each head fires in the traces, and how many dimensions its signals take, walked through by hand."""
    sizes: dict[tuple[Node, str], list[int]] = {}
    for numbers, tracer in tracers(pocket, [pair.clean_tokens for pair in pairs]):
        for place, number in enumerate(numbers):
            names, places = token_names(pairs[number]), pairs[number].positions
            (end,) = places["END"]
            start = tracer.firing(place, HEAD, end)
            for firing in tracer.traced(start) if start and start.source in places["IO"] else ():
                name = names.get(firing.destination, "other")
                sizes.setdefault((firing.head, name), []).append(len(firing.signal))
    assert {(place.head, place.token) for place in found.fired} == set(sizes) and len(sizes) > 5
    for place, size in found.fired.items():
        counted = sizes[place.head, place.token]
        assert (size.count, size.least, size.most) == (len(counted), min(counted), max(counted))
        assert size.dimensions == pytest.approx(np.mean(counted))


def test_what_is_shown_leads_to_the_first_head(found) -> None:
    for least in (0.1, 0.5):
        links = shown(found, least)
        assert links and all(link.count >= least * found.firings for link in links)
        reached = {link.sender for link in links} | {Place(HEAD, "END")}
        assert {link.receiver for link in links} <= reached
    assert len(shown(found, 0.1)) > len(shown(found, 0.5))


def test_tokens_have_their_own_names_first(pairs) -> None:
    names = token_names(pairs[0])
    positions = pairs[0].positions
    assert all(names[positions[name][0]] == name for name in ("IO", "S1", "S2", "END"))
    assert names[positions["S1"][0] + 1] == "S1+1"


# --- the verb ---------------------------------------------------------------------------------------


@pytest.fixture
def run(run):
    """Run the verb: (status, standard output, standard error)."""
    return partial(run, "trace")


def test_a_trace_is_told_and_drawn(run, tmp_path: Path) -> None:
    picture = tmp_path / "trace.svg"
    arguments = ("--head", "2.5", "--from", "END", "--to", "IO", "--prompts", "48", "--least", "50%")
    status, out, _ = run("pocket/ioi", *arguments, "-o", str(picture))
    assert status == 0 and "2.5 fires END -> IO on " in out and "of 48 prompts" in out
    chips = [g for g in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}g") if g.get("class") == "head"]
    drawn = {text.text for chip in chips for text in chip.iter("{http://www.w3.org/2000/svg}text")}
    told = {
        word for line in out.splitlines() if "asks)" in line or "asked)" in line for word in line.split() if "." in word
    }
    assert drawn == {word for word in told if not word.replace(".", "").isdigit() or len(word) == 3}


FROM_TO = ("--head", "2.5", "--from", "END", "--to", "IO")


@pytest.mark.parametrize("boost", [False, True])
@pytest.mark.parametrize("reaches", [(), ("global",), ("local", "global")])
def test_cuts_are_told_with_their_controls(run, pocket, reaches: tuple[Reach, ...], boost: bool) -> None:
    arguments = (*FROM_TO, "--prompts", "48", "--cut", *reaches, *(["--boost"] if boost else []))
    status, out, _ = run("pocket/ioi", *arguments)
    lines = [line.split() for line in out.splitlines() if line.startswith((" local,", " global,"))]
    shown = reaches or ("local",)
    assert status == 0
    assert [line[:2] for line in lines] == [[f"{r},", a] for r in shown for a in ("signal", "control")]
    circuit = with_overrides(load("pocket/ioi").circuits[0], prompts=48, seed=None)
    bench = make_prompts(circuit, circuit.tasks[0], pocket)
    cuts = Cuts(bench, shown, boost)
    for one in fired(pocket, bench.pairs, HEAD, [END], [IO]):
        cuts.add(*one)
    for told, reach in zip(lines[::2], shown, strict=True):
        change = cuts.found()[reach].signal
        assert told[2] == plain(change.metric.mean()) and told[5] == plain(change.score.mean())
        assert told[8:] == [plain(change.norm.mean(), 3), plain(change.cosine.mean(), 3)]
    assert ("added once more to" if boost else "taken out of") in out


def test_one_firing_has_no_interval(run) -> None:
    """A single prompt says nothing about others."""
    status, out, _ = run("pocket/ioi", *FROM_TO, "--prompts", "1", "--seed", "1", "--cut")
    (line,) = (line for line in out.splitlines() if line.startswith(" local, signal"))
    assert status == 0 and "on 1 of 1 prompts" in out and "[" not in line and "nan" not in out


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--head", "9.9", "--from", "END", "--to", "IO"), 2, "9.9 does not exist: pocket has 4 layers of 8 heads"),
        (("--head", "0.1", "--from", "END", "--to", "IO"), 2, "no head is upstream of 0.1"),
        (("--head", "mover", "--from", "END", "--to", "IO"), 2, "'mover' is no head"),
        (("--head", "2.5", "--from", "end", "--to", "IO"), 2, "'end' is no position"),
        (("--head", "2.5", "--from", "END", "--to", "OI"), 2, "the task ioi has no position OI"),
        (("--head", "3.5", "--from", "END", "--to", "END"), 3, "3.5 does not fire END -> END on any of 32 prompts"),
        (("--head", "3.5", "--from", "END", "--to", "END", "--cut", "global"), 3, "does not fire END -> END"),
        ((*FROM_TO, "--task", "x"), 2, "there is no task x"),
        ((*FROM_TO, "-o", "x.pdf"), 2, "use .svg or .png"),
        ((*FROM_TO, "--cut", "everywhere"), 2, "invalid choice: 'everywhere'"),
        ((*FROM_TO, "--boost"), 2, "give --cut as well"),
    ],
)
def test_mistakes_are_one_clear_error(run, arguments, status: int, says: str) -> None:
    found, _, err = run("pocket/ioi", "--prompts", "32", *arguments)
    assert (found, says in err) == (status, True), err
