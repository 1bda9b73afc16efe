"""What was measured before is found again, never mistaken for anything else, and never in the way."""

from __future__ import annotations

import random
import shutil
import sqlite3
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from circuitdsl import cli
from circuitdsl.api import loads
from circuitdsl.circuit.nodes import Edge, Input, Node, Position, Site
from circuitdsl.circuit.vocabulary import Metric
from circuitdsl.measurements.activation import Activation
from circuitdsl.measurements.requests import EdgeRequest, NodeRequest, Subgraph
from circuitdsl.models import record
from circuitdsl.models.agreement import logits_digest
from circuitdsl.models.errors import UnsupportedModel
from circuitdsl.models.load import load_model
from circuitdsl.models.model import Model
from circuitdsl.models.products import prefers_one_dnn
from circuitdsl.tasks.dataset import PromptPair, sample
from circuitdsl.tasks.registry import TASKS
from circuitdsl.verify import prompts
from circuitdsl.verify.cache import machine_of
from circuitdsl.verify.cache import memory as memory_of
from circuitdsl.verify.folder import default_path
from circuitdsl.verify.measure import measure
from circuitdsl.verify.prompts import prompts_by_task
from circuitdsl.verify.prompts import scored_prompts as make_bench
from circuitdsl.verify.session import Options, Session
from circuitdsl.verify.store import Store, digest
from circuitdsl.verify.verify import verify
from tests.drawing import examples

SPEC = """circuit t
model "pocket"
task ioi(prompts = 40)
heads mover = 2.5 2.7 at END
0.6 -> mover.q at END
each 0.6 -> mover.q at END : lowers
0.6 -> m2 at END via mlps : lowers
expect knockout(mover) : effect <= 50%
expect knockout(mover, ablate = mean) : effect <= 50%
expect attention(mover, END -> IO) >= 10%
expect accuracy >= 90%
expect logit_diff >= 3
"""
#: no nulls, and no means over thousands of prompts
SMALL = SPEC.replace("0.6 -> mover.q at END\neach", "each").replace(
    "expect knockout(mover, ablate = mean) : effect <= 50%\n", ""
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "results.sqlite"


@pytest.fixture(scope="module")
def of_small(pocket, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A cache of what `SMALL` measures on the pocket model, and the numbers of the report."""
    path = tmp_path_factory.mktemp("small") / "results.sqlite"
    (circuit,) = loads(SMALL).circuits
    with Store(path) as store:
        report = verify(circuit, pocket, prompts_by_task(circuit, pocket, store))
    return path, numbers(report)


@pytest.fixture
def known(of_small: tuple[Path, dict], path: Path) -> Path:
    """The cache of this test, which knows `SMALL`."""
    path.parent.mkdir()
    return shutil.copy(of_small[0], path)


@pytest.fixture
def good(of_small: tuple[Path, dict]) -> dict:
    """The numbers of `SMALL`, measured without anything known."""
    return of_small[1]


@pytest.fixture
def run(pocket, path):
    """Verify a text with the cache; `run(text, model)` returns (report, block-positions)."""

    def call(text: str = SPEC, model=pocket, store: bool = True, progress=None, **options):
        (circuit,) = loads(text).circuits
        kept = Store(path, warn=lambda text: None) if store else None
        try:
            return verify(circuit, model, prompts_by_task(circuit, model, kept), Options(**options), progress)
        finally:
            if kept:
                kept.close()

    return call


def numbers(report) -> dict:
    """All of a report but what says how much work it took."""
    found = asdict(report)
    return {k: v for k, v in found.items() if k not in ("seconds", "cached", "block_positions")}


def test_the_numbers_are_the_same_with_and_without(run) -> None:
    without, first, again = run(store=False), run(), run()
    assert numbers(without) == numbers(first) == numbers(again)
    assert (without.cached, first.cached, again.cached) == (0, 0, 1)
    assert again.block_positions == 0 < first.block_positions == without.block_positions


def test_prompts_for_means_are_made_only_where_a_mean_is_new(run, monkeypatch: pytest.MonkeyPatch) -> None:
    first, real, drawn = run(), prompts.corrupt_prompts, []

    def corrupt_prompts(task, tokens, n: int, *rest):
        drawn.append(n)
        return real(task, tokens, n, *rest)

    monkeypatch.setattr(prompts, "corrupt_prompts", corrupt_prompts)
    again = run(SPEC.replace("knockout(mover) : effect <= 50%", "knockout(mover) : effect <= 40%"))
    assert (first.cached, again.cached) == (0, 1)
    assert not drawn
    names = TASKS["ioi"].lists["names"]
    other = replace(TASKS["ioi"], lists=TASKS["ioi"].lists | {"names": replace(names, words=names.words[:-1])})
    # means are then of other prompts, even where those that are measured are the same
    monkeypatch.setattr(prompts, "TASKS", {"ioi": other})
    assert run().cached < 1
    assert drawn == [prompts.MEAN_PROMPTS]


def test_an_edited_spec_measures_what_is_new(run) -> None:
    first = run(early_stop=False)
    edited = SPEC.replace("knockout(mover) : effect <= 50%", "knockout(mover) : effect <= 40%")
    same = run(edited, early_stop=False)
    assert same.block_positions == 0 and same.cached == 1, "a bound is no measurement"
    more = run(edited + "0.1 -> 2.5.q at END : lowers\n", early_stop=False)
    alone = run(SPEC.split("heads")[0] + "0.1 -> 2.5.q at END : lowers\n", store=False, early_stop=False)
    assert alone.block_positions <= more.block_positions < first.block_positions / 10, "the nulls may shift a little"
    assert 0.9 < more.cached < 1
    fresh = run(edited + "0.1 -> 2.5.q at END : lowers\n", store=False, early_stop=False)
    for ours, theirs in zip(more.claims, fresh.claims, strict=True):
        assert ours.verdict == theirs.verdict
        assert ours.measured.value == pytest.approx(theirs.measured.value, abs=1e-5)


def test_traces_are_found_again(run, monkeypatch) -> None:
    lines = SPEC.split("heads")[0] + "trace 0.6 END -> S2 includes 0.5 at END\ntrace 2.5 END -> IO includes 1.5 at IO\n"
    first = run(lines)
    with monkeypatch.context() as patch:
        patch.setattr("circuitdsl.engine.trace.fired", lambda *_: pytest.fail("a known trace is made again"))
        assert numbers(run(lines)) == numbers(first)
    assert numbers(run(lines, store=False)) == numbers(first)


def test_more_prompts_of_the_same_seed_are_the_first_ones_and_more(run) -> None:
    lines = SPEC.split("task")[0] + "task ioi(prompts = {n})\n0.6 -> 2.5.q at END : lowers\n"
    run(lines.format(n=32))
    more = run(lines.format(n=64), early_stop=False)
    assert more.cached == 0.5
    (ours,), (theirs,) = more.claims, run(lines.format(n=64), store=False, early_stop=False).claims
    assert ours.measured.value == pytest.approx(theirs.measured.value, abs=1e-6)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("prompts = 40", "prompts = 40, seed = 1"),
        ("prompts = 40", "prompts = 40, corrupt = flip"),
        ("heads mover", "metric logit_diff(against = corrupt)\nheads mover"),
        ("heads mover", "metric prob_diff\nheads mover"),
    ],
)
def test_nothing_is_mistaken_for_something_else(run, known: Path, old: str, new: str) -> None:
    changed = SMALL.replace(old, new).replace("corrupt)", "max)") if "against" in new else SMALL.replace(old, new)
    report = run(changed)
    assert report.cached == 0
    assert numbers(report) == numbers(run(changed, store=False))


def test_the_model_is_known_by_what_it_computes(run, known: Path, pocket) -> None:
    gain = pocket.final_norm.gain.clone()
    gain[3] += 1e-3
    other = replace(pocket, final_norm=replace(pocket.final_norm, gain=gain))
    assert logits_digest(other) != logits_digest(pocket)
    report = run(SMALL, model=other)
    assert report.cached == 0
    assert numbers(report) == numbers(run(SMALL, model=other, store=False))


def test_the_number_format_is_part_of_what_a_number_depends_on_and_threads_are_not(pocket, path: Path) -> None:
    before = torch.get_num_threads()
    with Store(path) as store:
        one = memory_of(store, Model.of(pocket), (), Metric(), tuple).context
        assert memory_of(store, Model.of(pocket), (), Metric(), tuple).context == one
        assert memory_of(store, Model.of(pocket), (), Metric("kl"), tuple).context != one
        half = replace(pocket, W_E=pocket.W_E.bfloat16())
        assert machine_of(Model.of(half)) != machine_of(Model.of(pocket))
        torch.set_num_threads(before + 1)
        try:
            assert memory_of(store, Model.of(pocket), (), Metric(), tuple).context == one
        finally:
            torch.set_num_threads(before)


# --- what a number depends on ----------------------------------------------------------------------

IO = Position("IO")
HEAD = Node("head", 2, 5)
EDGE = EdgeRequest((Edge(Node("head", 0, 6), Input(HEAD, "k"), IO),))
MEAN = NodeRequest((Site(HEAD, IO),), ablate="mean")


@pytest.fixture
def pair(pocket_tokens) -> PromptPair:
    return sample(TASKS["ioi"], pocket_tokens, 1).pairs[0]


@pytest.fixture
def key(pocket, path: Path, pair: PromptPair):
    """The hashes under which a request's number on a prompt is kept."""

    def call(request, prompt: PromptPair = pair, means: tuple[PromptPair, ...] = (pair,)) -> tuple[bytes, bytes]:
        with Store(path) as store:
            known = memory_of(store, Model.of(pocket), (prompt,), Metric(), lambda: means)
            return known.name(request), known.prompts(request)[0]

    return call


@pytest.mark.parametrize(
    "field", ["clean_tokens", "corrupt_tokens", "answers", "distractors", "corrupt_answers", "positions"]
)
@pytest.mark.parametrize("request_", [EDGE, MEAN], ids=["edge", "mean"])
def test_a_number_depends_on_its_prompt(key, pair: PromptPair, field: str, request_) -> None:
    before = getattr(pair, field)
    after = {**before, "IO": (1,)} if field == "positions" else (7, *before[1:])
    assert key(request_, replace(pair, **{field: after}))[1] != key(request_)[1]
    assert key(request_, replace(pair, positions=pair.positions | {"S1": (1,)})) == key(request_)


def test_a_mean_depends_on_its_stratum_and_on_the_prompts_it_is_a_mean_of(key, pair: PromptPair) -> None:
    elsewhere, other = replace(pair, stratum="else"), replace(pair, corrupt_tokens=(7, *pair.corrupt_tokens[1:]))
    assert key(EDGE, elsewhere, (other,)) == key(EDGE)
    assert key(MEAN, elsewhere)[1] != key(MEAN)[1] != key(EDGE)[1]
    assert len({key(MEAN, pair, pool)[0] for pool in ((pair,), (other,), (elsewhere,), (pair, other))}) == 4


def test_prompts_of_means_have_hashes_of_their_own(pocket, path: Path, pair: PromptPair) -> None:
    with Store(path) as store:
        known = memory_of(store, Model.of(pocket), (pair,), Metric(), lambda: (pair,))
        assert known.prompts(EDGE) != known.prompts(MEAN)


def test_a_number_depends_on_the_model_the_machine_and_the_code(pocket, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [logits_digest(one) for one in (pocket, replace(pocket, sha256="x"), replace(pocket, n_ctx=90))]
    assert len(set(digests)) == 3
    machine = machine_of(Model.of(pocket))
    was = prefers_one_dnn()
    monkeypatch.setattr("circuitdsl.models.products.prefers_one_dnn", lambda: not was)
    assert machine_of(Model.of(pocket)) != machine
    code = record.code_digest()
    record.code_digest.cache_clear()
    monkeypatch.setattr(record, "_CODE", ("measurements", "models"))
    assert record.code_digest() != code
    record.code_digest.cache_clear()


def test_circuits_that_differ_in_anything_have_other_names() -> None:
    site, edge = frozenset([Site(HEAD, IO)]), frozenset(EDGE.edges)
    circuits = [
        Subgraph("nodes"),
        Subgraph("edges"),
        Subgraph("nodes", site),
        Subgraph("edges", edges=edge),
        Subgraph("nodes", site, mlps=True),
        Subgraph("nodes", site, ablate="mean"),
        Subgraph("nodes", site, inverted=True),
    ]
    assert len(set(map(repr, circuits))) == len(circuits)


def test_that_a_patch_changed_nothing_is_remembered(pocket, pocket_tokens, path: Path) -> None:
    data = sample(TASKS["ioi"], pocket_tokens, 8, corrupt="flip")  # which leaves IO as it is
    found = []
    for _ in range(2):
        with Store(path) as store:
            one = make_bench(pocket, data, Metric(), store=store)
            found.append(measure(one, [EDGE], np.arange(8))[EDGE])
            assert one.cache.found == (8 if len(found) == 2 else 0)
    assert not any(series.changed.any() for series in found)


def test_what_this_run_has_measured_is_not_known_from_earlier(pocket, path: Path) -> None:
    (circuit,) = loads(SMALL).circuits
    shares = []
    for _ in range(2):
        with Store(path) as store:
            shares.append([verify(circuit, pocket, prompts_by_task(circuit, pocket, store)).cached for _ in range(2)])
    assert shares == [[0, 0], [1, 1]]


# --- a file is only a file -------------------------------------------------------------------------


def test_flipped_bytes_never_make_a_number(run, path: Path) -> None:
    small = SMALL.split("heads")[0] + "0.6 -> 2.5.q at END : lowers\nexpect attention(0.6, END -> IO) <= 90%\n"
    good = numbers(run(small))
    whole = path.read_bytes()
    rng = random.Random(0)
    shares = []
    trials = examples(20, 40)
    for trial in range(trials):
        data = bytearray(whole)
        for _ in range(1 if trial < 3 * trials // 4 else 200):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        report = run(small)
        assert numbers(report) == good
        shares.append(report.cached)
    assert min(shares) < 1, "some flips must have hit what was stored"


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100, b"SQLite format 3\x00" + bytes(5000)])
def test_a_file_that_is_none_of_ours_is_begun_anew(run, path: Path, good: dict, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    assert numbers(run(SMALL)) == good
    assert numbers(run(SMALL)) == good
    assert run(SMALL).cached == 1


def test_a_cut_file_is_no_trouble(run, known: Path, good: dict) -> None:
    known.write_bytes(known.read_bytes()[:-3000])
    assert numbers(run(SMALL)) == good


def test_a_place_that_cannot_be_written_is_said_once(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "t.circ").write_text(SMALL)
    monkeypatch.setenv("CIRCUITDSL_CACHE", str(tmp_path / "file"))
    assert cli.run(["verify", str(tmp_path / "t.circ"), "--format", "json"]) in (0, 1)
    assert capsys.readouterr().err.count("warning: the cache of measurements") == 1
    assert cli.run(["verify", str(tmp_path / "t.circ"), "--no-cache", "--format", "json"]) in (0, 1)
    assert "cache" not in capsys.readouterr().err


def test_a_table_of_another_shape_is_passed_over(run, path: Path, good: dict) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE numbers (a TEXT)")
    assert numbers(run(SMALL)) == good


def test_two_at_once_do_not_hurt_each_other(path: Path) -> None:
    one, two = Store(path), Store(path)
    prompts = [digest(bytes([i])) for i in range(5)]
    for i in range(20):
        store = (one, two)[i % 2]
        store.write(
            {digest(b"r", bytes([i])): (np.full(5, i / 7), np.ones(5, bool))},
            {digest(b"r", bytes([i])): prompts},
        )
    names = [digest(b"r", bytes([i])) for i in range(20)]
    assert [one.read([n])[n][prompts[2]] for n in names] == [(i / 7, True, i % 2 == 1) for i in range(20)]
    one.close()
    assert len(two.read(names)) == 20
    two.close()


def test_while_another_writes_everything_is_measured(run, known: Path, good: dict) -> None:
    other = sqlite3.connect(known, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    try:
        locked = run(SMALL)
        assert locked.cached == 0
        assert numbers(locked) == good
    finally:
        other.close()


def test_the_oldest_go_first(path: Path) -> None:
    prompts = [digest(bytes([i % 256, i // 256])) for i in range(1000)]
    with Store(path, limit=400_000) as store:
        for i in range(100):
            store.write(
                {digest(bytes([i])): (np.full(1000, float(i)), np.zeros(1000, bool))},
                {digest(bytes([i])): prompts},
            )
            store.connection.execute("UPDATE numbers SET used = ? WHERE request = ?", (i, digest(bytes([i]))))
        known = [i for i in range(100) if store.read([digest(bytes([i]))])]
    assert path.stat().st_size < 600_000
    assert 99 in known and 0 not in known
    assert known == list(range(known[0], 100))


# --- interrupted -----------------------------------------------------------------------------------


def test_what_was_finished_before_ctrl_c_is_kept(run) -> None:
    calls = 0

    def stop(done: int, total: int, text: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    broken = run(progress=stop, early_stop=False)
    assert broken.interrupted
    resumed = run(early_stop=False)
    assert 0 < resumed.cached < 1
    fresh = run(store=False, early_stop=False)
    assert resumed.block_positions + broken.block_positions == fresh.block_positions
    assert numbers(resumed) == numbers(fresh)


def test_the_command_line_keeps_and_says_so(tmp_path: Path, capsys) -> None:
    (tmp_path / "t.circ").write_text(SMALL)
    cli.run(["verify", str(tmp_path / "t.circ")])
    assert "earlier runs" not in capsys.readouterr().out
    assert default_path().is_file()
    cli.run(["verify", str(tmp_path / "t.circ")])
    assert "100 % of the numbers known from earlier runs" in capsys.readouterr().out
    cli.run(["verify", str(tmp_path / "t.circ"), "--no-cache"])
    assert "earlier runs" not in capsys.readouterr().out


def test_a_model_whose_weights_change_in_memory_is_measured_again(tmp_path) -> None:
    """A notebook verifies its own model, changes it and verifies once more, in one session."""
    spec, model = tmp_path / "t.circ", load_model("pocket", device="cpu")
    spec.write_text('circuit t\nmodel "pocket"\ntask ioi(prompts = 64)\nm3 -> logits at END : lowers\n')
    with Session(model=model, device="cpu") as session:
        (before,) = session.verify(spec).claims
        for weights in (model.blocks[3].mlp.down.weight, model.blocks[3].mlp.down.bias):
            weights.zero_()
        (after,) = session.verify(spec).claims
    assert before.verdict == "holds"
    assert after.verdict == "error" and after.reason.startswith("this corruption does not change m3 at END")


def test_weights_that_change_in_memory_are_not_taken_for_those_of_the_files(tmp_path) -> None:
    """They are refused, and no later session is given their numbers."""
    spec = tmp_path / "t.circ"
    lines = 'circuit t\nmodel "pocket"\ntask ioi(prompts = 64)\nm3 -> logits at END : lowers\n'
    spec.write_text(lines)
    with Session(device="cpu") as session:
        session.verify(spec)
        source = session.source_of(session.circuit(spec))
        assert source.is_read and not source.is_changed, "measuring writes to no weights"
        source.parts.blocks[2].mlp.down.weight.mul_(3)
        spec.write_text(lines + "m2 -> logits at END : lowers\n")
        with pytest.raises(UnsupportedModel):
            session.verify(spec)
    with Session(device="cpu") as later, Session(device="cpu", cache=False) as anew:
        found, true = ([claim.measured.value for claim in one.verify(spec).claims] for one in (later, anew))
    assert found == pytest.approx(true)


def test_an_embedding_is_part_of_what_a_model_is(pocket) -> None:
    """That of a token, or of a position, that no probe has; nothing else reads it where it is not tied."""
    digests = {logits_digest(pocket)}
    for name in ("W_E", "W_pos"):
        table = getattr(pocket, name).clone()
        table[-1] += 1
        digests.add(logits_digest(replace(pocket, **{name: table})))
    assert len(digests) == 3


def test_numbers_of_features_depend_on_the_prompts_that_settle_how_a_hook_is_read(key, pair: PromptPair) -> None:
    def name(node: Node, clean: PromptPair) -> bytes:
        return key(Activation((Site(node, Position("END")),)), clean)[0]

    other, neuron = replace(pair, clean_tokens=pair.clean_tokens[::-1]), Node("mlp", 1, index=3)
    feature = neuron._replace(of="t1#0")
    assert name(feature, pair) != name(feature, other)
    assert name(feature, pair) != name(feature._replace(of="t1#1"), pair)
    assert name(neuron, pair) == name(neuron, other)
