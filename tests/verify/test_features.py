"""Claims about features of a dictionary that is known by construction: true ones hold, false ones do not."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from circuitdsl.api import load, loads
from circuitdsl.circuit.claims import membership
from circuitdsl.circuit.features import reopen
from circuitdsl.circuit.nodes import Site
from circuitdsl.circuit.shapes import ModelShape
from circuitdsl.dictionaries import known, read_dictionary
from circuitdsl.dictionaries.record import DictionaryError
from circuitdsl.engine.prompts import Prompts
from circuitdsl.interop.names import hook_graph
from circuitdsl.language.parse import parse
from circuitdsl.measurements.fires import Fires
from circuitdsl.measurements.nulls import SIZE
from circuitdsl.measurements.plan import ClaimPlan
from circuitdsl.models.parts import Transformer
from circuitdsl.testing.mutants import mutants
from circuitdsl.verify.matched import matched
from circuitdsl.verify.measure import measure
from circuitdsl.verify.plan import plan
from circuitdsl.verify.prompts import make_prompts
from circuitdsl.verify.session import Session

D = 128
HEAD = 'circuit known\nmodel "pocket"\ntask ioi(prompts = 128)\n'
SHIPPED = f'{HEAD}dictionary t1 = transcoder("pocket/transcoders/1")\n'


def doubled(folder: Path, scale: float = 1.0, hook: str = "blocks.3.hook_resid_post") -> str:
    """Two features for each dimension of what the final norm reads: they explain everything, or less if scaled."""
    one = torch.eye(D)
    both = torch.cat((one, -one))
    tensors = {"W_enc": scale * both.T, "W_dec": both, "b_enc": torch.zeros(2 * D), "b_dec": torch.zeros(D)}
    folder.mkdir()
    save_file({name: each.contiguous() for name, each in tensors.items()}, folder / "sae_weights.safetensors")
    metadata = {"sae_lens_version": "6.51.1", "hook_name": hook}
    config = {
        "architecture": "standard",
        "d_in": D,
        "d_sae": 2 * D,
        "metadata": metadata,
        "apply_b_dec_to_input": False,
    }
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder.name


def verdicts(tmp_path: Path, *lines: str) -> list[str]:
    spec = tmp_path / "known.circ"
    spec.write_text(HEAD + "\n".join(lines) + "\n")
    with Session(cache=False) as session:
        return [claim.verdict for claim in session.verify(spec).claims]  # type: ignore[union-attr]


@pytest.mark.long
def test_all_features_are_the_stream_and_none_of_them_is_more(tmp_path: Path) -> None:
    every = " ".join(f"r[{i}]" for i in range(2 * D))
    lines = (
        f'dictionary r = sae("{doubled(tmp_path / "both")}")',
        f"features every = {every} at END",
        "expect knockout(every) : effect <= -70%",
        "expect knockout(every) : effect >= -50%",
        "every -> logits at END : lowers",
        "every -> logits at END : raises",
        "expect denoise(every) : effect >= 70%",
        "expect reconstruction(r) >= 90%",
        "expect reconstruction(r) <= 60%",
    )
    assert verdicts(tmp_path, *lines) == ["holds", "fails", "holds", "fails", "holds", "holds", "fails"]


@pytest.mark.long
def test_all_features_of_what_the_final_norm_reads_receive_as_the_logits_do(tmp_path: Path) -> None:
    """They explain all of it, so that what is sent to them all is sent to the logits; to few of them, it is less."""
    every = " ".join(f"r[{i}]" for i in range(2 * D))
    true = (
        "m3 -> logits at END : lowers",
        "path m3 -> every at END -> logits : lowers",
        "path 2.4 -> m3 at END -> every at END -> logits : effect in [-50%, 50%]",
        "m3 -> few at END : effect in [-2%, 2%]",
        "when m3 -> every at END is patched",
        "  expect logit_diff falls",
        "intervention half",
        "  scale every by 0.5",
        "  expect logit_diff in [-30, 30]",
        "intervention gone",
        "  replace every with corrupt",
        "  expect logit_diff <= 3",
    )
    false = (
        "path m3 -> every at END -> logits : raises",
        "path m3 -> every at END -> logits : negligible",
        "path m3 -> every at END -> logits : stronger than m3 -> logits at END",
        "path m3 -> few at END -> logits : effect <= -5%",
        "m3 -> few at END : effect <= -5%",
        "m3 -> few at END : raises",
        "0.0 -> few at END : matters",
        "intervention nothing",
        "  scale few by 1.001",
        "  expect logit_diff falls by >= 1",
    )
    lines = (
        f'dictionary r = sae("{doubled(tmp_path / "both")}")',
        f"features every = {every} at END",
        "features few = r[3] r[5] at END",
    )
    spec = tmp_path / "known.circ"
    spec.write_text(HEAD + "\n".join((*lines, *true, *false)) + "\n")
    with Session(cache=False) as session:
        claims = {claim.text: claim for claim in session.verify(spec).claims}  # type: ignore[union-attr]
    found = [claim.verdict for claim in claims.values()]
    assert (set(found[:7]), set(found[7:]) & {"holds"}) == ({"holds"}, set()), list(zip(claims, found, strict=True))
    first, second, *_ = [each.measured.value for each in claims.values()]
    assert first == pytest.approx(second, abs=1e-5) and first < -0.1


def test_the_dictionary_of_a_receiver_is_read_as_it_was_trained(pocket: Transformer, tmp_path: Path) -> None:
    """The same transcoder, of what stands before the norm's gain: the same effect, on an edge and on a path."""
    shipped, norm = read_dictionary("pocket/transcoders/1"), pocket.blocks[1].mlp_norm
    tensors = {name: held.read() for name, held in shipped.tensors.items()}
    W_enc = tensors["W_enc"].T
    tensors |= {"W_enc": norm.gain[:, None] * W_enc, "b_enc": tensors["b_enc"] + norm.bias @ W_enc}
    hooks = {"hook_name": "blocks.1.ln2.hook_normalized", "hook_name_out": "blocks.1.hook_mlp_out"}
    config = {"architecture": "jumprelu_transcoder", "d_in": D, "d_out": D, "d_sae": shipped.d_sae}
    folder = tmp_path / "before"
    folder.mkdir()
    save_file({name: each.contiguous() for name, each in tensors.items()}, folder / "sae_weights.safetensors")
    metadata = {"sae_lens_version": "6.51.1", **hooks}
    (folder / "cfg.json").write_text(json.dumps({**config, "apply_b_dec_to_input": False, "metadata": metadata}))
    spec, values = tmp_path / "known.circ", []
    for name, line in (("t1", 'transcoder("pocket/transcoders/1")'), ("g", 'transcoder("before")')):
        lines = (f"0.6 -> {name}[49] at END : effect <= 5%", f"path 0.6 -> {name}[49] at END -> logits : effect <= 5%")
        for claim in lines:  # alone: no other claim names the dictionary
            spec.write_text(f"{HEAD}dictionary {name} = {line}\n{claim}\n")
            with Session(cache=False) as session:
                (found,) = session.verify(spec).claims  # type: ignore[union-attr]
            values.append(found.measured.value)
    assert values[:2] == pytest.approx(values[2:], abs=1e-5)
    assert abs(values[0]) > 1e-3


def test_what_the_features_do_not_explain_is_in_the_error(tmp_path: Path) -> None:
    every = " ".join(f"r[{i}]" for i in range(2 * D))
    lines = (
        f'dictionary r = sae("{doubled(tmp_path / "half", 0.7)}")',
        f"nodes every = {every} r[error] at END",
        "expect knockout(every) : effect <= -70%",
        "expect knockout(r[error] at END) : lowers",
        "expect reconstruction(r) in [60%, 95%]",
    )
    assert verdicts(tmp_path, *lines) == ["holds", "holds", "holds"]


def test_a_feature_that_never_fires_has_nothing_to_patch(tmp_path: Path) -> None:
    with Session("pocket") as session:
        dead = session.dictionaries("pocket/transcoders/2", "ioi", prompts=64, top=300).found[0]
    never = next(i for i in range(256) if i not in {each.index for each in dead.strongest})
    line = 'dictionary t2 = transcoder("pocket/transcoders/2")'
    spec = tmp_path / "known.circ"
    spec.write_text(f"{HEAD}{line}\nt2[{never}] -> logits at END : negligible\n")
    with Session(cache=False) as session:
        report = session.verify(spec)
    (claim,) = report.claims  # type: ignore[union-attr]
    assert claim.verdict == "error" and not report.tasks[0].notes  # type: ignore[union-attr]
    named = re.findall(r"t2\[(\d+)\] \(cosine (0\.\d+)\)", claim.reason)
    assert f"t2[{never}] never fires there" in claim.reason and len(named) == 3
    rows = read_dictionary("pocket/transcoders/2").tensors["W_dec"].read()
    cosines = torch.nn.functional.cosine_similarity(rows, rows[never], dim=-1)
    assert all(abs(cosines[int(i)] - float(said)) < 0.006 for i, said in named)
    nearer = [i for i in range(256) if i != never and cosines[i] > cosines[int(named[-1][0])]]
    fire = [f"expect fires(t2[{i}], at = END) > 0%" for i, _ in named]
    rest = [f"expect fires(t2[{i}], at = END) <= 10%" for i in nearer if str(i) not in dict(named)]
    found = verdicts(tmp_path, line, *fire, *rest, f"expect fires(t2[{never}], at = END) <= 10%")
    assert "fails" not in found and set(found[3:]) == {"holds"}, "none that is nearer fires"


def test_a_dictionary_that_explains_little_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (f'dictionary r = sae("{doubled(tmp_path / "little", 0.2)}")', "r[error] -> logits at END : lowers")
    spec = tmp_path / "known.circ"
    spec.write_text(f"{HEAD}{lines[0]}\n3.0 -> logits at END : lowers\n")
    with Session(cache=False) as session:
        assert not session.verify(spec).tasks[0].notes, "no claim names a feature of it"  # type: ignore[union-attr]
    spec.write_text(HEAD + "\n".join(lines) + "\n")
    monkeypatch.setenv("CIRCUITDSL_CACHE", str(tmp_path / "cache"))
    said = (
        "r explains only .. % of blocks.3.hook_resid_post on the first 32 prompts: what its features do may say little"
    )
    for _ in range(2):  # the second time all is known from earlier
        with Session() as session:
            (note,) = session.verify(spec).tasks[0].notes  # type: ignore[union-attr]
        assert re.fullmatch(said, note)
        monkeypatch.setattr("circuitdsl.engine.dictionaries.settled", None)


def test_a_dictionary_that_explains_nothing_is_refused(tmp_path: Path) -> None:
    name = doubled(tmp_path / "wrong", -1.0)
    with pytest.raises(DictionaryError, match="less than a constant would"):
        verdicts(tmp_path, f'dictionary r = sae("{name}")', "r[1] -> logits at END : negligible")


def test_under_a_condition_features_are_those_of_the_patched_run(tmp_path: Path) -> None:
    every = " ".join(f"r[{i}]" for i in range(2 * D))
    lines = (
        f'dictionary r = sae("{doubled(tmp_path / "both")}")',
        f"features every = {every} at END",
        "heads mover = 3.0 3.1 at END",
        "when mover is knocked out",
        "  expect knockout(every) : effect <= -70%",
    )
    (verdict,) = verdicts(tmp_path, *lines)
    assert verdict in ("holds", "fails")  # it is measured; what is left of the gap depends on the model


def test_features_of_an_mlp_are_members_of_the_circuit_as_neurons_are() -> None:
    lines = (
        'dictionary r1 = sae("pocket/saes/resid1")',
        "features some = t1[49] r1[444] at END",
        "features out = t1[44] at END  outside",
        "some -> logits at END : lowers",
        "out -> logits at END : lowers",
        "expect faithfulness >= 10%",
    )
    (circuit,) = loads(SHIPPED + "\n".join(lines) + "\n").circuits
    found = membership(circuit)
    assert [str(site.node) for site in found.sites] == ["t1[49]"] and found.mlps
    assert {str(edge.sender) for edge in found.edges} == {"t1[49]"}
    assert "r1[444]" in circuit.graph.nodes


def test_a_circuit_that_divides_an_mlp_in_two_ways_is_refused() -> None:
    lines = ("nodes some = t1[49] m1[3] at END", "expect faithfulness >= 10%")
    text = SHIPPED + lines[0].replace("t1[49] ", "") + "\nfeatures other = t1[49] at END\n" + lines[1] + "\n"
    assert [d.message for d in loads(text).diagnostics if d.severity == "error"] == [
        "the circuit holds m1[3] and t1[49], which share what they write: it would count twice"
    ]


def test_the_same_file_is_one_dictionary_and_another_is_another(tmp_path: Path) -> None:
    def sender(path: str, name: str) -> object:
        text = f'{HEAD}dictionary {name} = sae("{path}")\n{name}[1] -> logits at END : lowers\n'
        spec = tmp_path / "one.circ"
        spec.write_text(text)
        (circuit,) = load(spec).circuits
        return circuit.claims[0].measurement

    one, two = doubled(tmp_path / "one"), doubled(tmp_path / "two", 0.9)
    assert sender(one, "r") == sender(one, "r") != sender(two, "r")


def test_mutants_name_the_feature_beside_it() -> None:
    spec = loads(f"{SHIPPED}t1[49] -> logits at END : lowers\nt1[error] -> logits at END : lowers\n")
    found = mutants(parse(spec.text)[0], spec.circuits, (4, 8), lambda place: None)
    assert [each.after for each in found if each.what == "feature swapped"] == ["t1[48] -> logits at END : lowers"]


def test_a_word_may_still_be_the_name_of_a_group() -> None:
    lines = ("heads features = 2.4 at END", "heads dictionary = 2.5 at END", "features -> logits at END : lowers")
    assert loads(HEAD + "\n".join(lines) + "\n").ok


def matched_with(pocket: Transformer, *lines: str) -> tuple[list[ClaimPlan], Prompts]:
    """The plans of some claims on features of t1, with their nulls as they are measured; the prompts."""
    (circuit,) = loads(SHIPPED + "\n".join(lines) + "\n").circuits
    prompts = make_prompts(circuit, circuit.tasks[0], pocket)
    plans = plan(circuit, ModelShape("pocket", 4, 8))
    return [matched(each, prompts, np.arange(128)) for each in plans], prompts


def test_matters_compares_a_feature_with_those_that_fire_as_often(pocket: Transformer) -> None:
    """Each feature's own count is asked for by itself, as `fires` does."""
    claims = ("t1[179] -> logits at END", "expect knockout(t1[179] at END) : matters", "t1[49] -> logits at END")
    (edge, node, often), prompts = matched_with(pocket, *claims)
    ((mine, place),) = edge.parts[0].request.writes
    sites = [Fires((Site(mine._replace(index=i), place),)) for i in range(256)]
    found = measure(prompts, sites, np.arange(32))
    counts = [found[each].values.sum() for each in sites]
    as_often = {i for i in range(256) if counts[i] >= counts[mine.index] > 0} - {mine.index}
    assert 19 <= len(as_often) <= SIZE
    for each in (edge, node):
        null = [node for other in each.parts[0].null for node, _ in other.writes]
        assert {node.index for node in null} == as_often - ({49} if each is edge else set()) and len(null) == len(
            set(null)
        )
        assert {node.of for node in null} == {mine.of}
    assert len(often.parts[0].null) < 19, "12 features fire at a position: not 19 of them on all prompts"


def test_a_group_of_features_is_compared_with_groups_that_fire_as_often(pocket: Transformer) -> None:
    (group, error, mixed), prompts = matched_with(
        pocket,
        "features some = t1[49] t1[44] at END",
        "some -> logits at END : matters",
        "t1[error] -> logits at END",
        "nodes both = t1[49] 3.1 at END",
        "both -> logits at END : matters",
    )
    null = group.parts[0].null
    rest = {frozenset(node.index for node, _ in other.writes) for other in null}
    assert len(null) == len(rest) == SIZE and all(len(each) == 2 for each in rest)
    assert {49, 44} not in rest and any(each & {49, 44} for each in rest)
    ((mine, place), _) = group.parts[0].request.writes
    sites = [Fires((Site(mine._replace(index=i), place),)) for i in range(256)]
    counts = {i: each.values.sum() for i, each in enumerate(measure(prompts, sites, np.arange(32)).values())}
    own = sorted((counts[44], counts[49]))
    assert all(sorted(counts[i] for i in each)[k] >= own[k] for each in rest for k in (0, 1))
    assert error.parts[0].null == mixed.parts[0].null == ()


def test_which_features_fire_is_known_from_earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITDSL_CACHE", str(tmp_path / "cache"))
    spec = tmp_path / "known.circ"
    spec.write_text(SHIPPED + "t1[179] -> logits at END\n")
    seen = []
    for _ in range(2):
        with Session() as session:
            (claim,) = session.verify(spec).claims  # type: ignore[union-attr]
            seen.append((claim.verdict, claim.null))
        monkeypatch.setattr("circuitdsl.engine.dictionaries.fires_on", None)
    assert seen[0] == seen[1] and seen[0][1] is not None


def test_hooks_name_what_a_feature_is_a_part_of() -> None:
    text = f'{SHIPPED}dictionary r3 = sae("pocket/saes/resid3")\nfeatures some = t1[49] r3[4] at END\n'
    (circuit,) = loads(f"{text}some -> logits at END : lowers\n").circuits
    writes = [node["write"] for node in hook_graph(circuit)["nodes"] if "write" in node]
    assert writes == [{"hook": "blocks.2.hook_resid_post"}, {"hook": "blocks.1.hook_mlp_out"}] or writes == [
        {"hook": "blocks.1.hook_mlp_out"},
        {"hook": "blocks.2.hook_resid_post"},
    ]


def test_another_process_opens_the_dictionaries_of_a_circuit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tmp_path / "known.circ"
    name = doubled(tmp_path / "both", 1.1)
    spec.write_text(f'{HEAD}dictionary r = sae("{name}")\nr[1] -> logits at END : effect in [-50%, 50%]\n')
    (circuit,) = load(spec).circuits
    sent = pickle.loads(pickle.dumps(circuit.dictionaries))
    monkeypatch.setattr(known, "_KNOWN", {})
    with pytest.raises(DictionaryError, match="r is not known in this process"):
        known.known(sent[0][0])
    reopen(sent)
    assert known.known(sent[0][0]).dictionary.d_sae == 2 * D
    monkeypatch.setattr(known, "_KNOWN", {})
    (tmp_path / "both" / "cfg.json").write_text((tmp_path / "both" / "cfg.json").read_text() + "\n")
    with pytest.raises(DictionaryError, match="is another dictionary"):
        reopen(sent)


def test_a_changed_dictionary_gives_no_old_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not where its file has another content and the same size and time, either."""
    monkeypatch.setenv("CIRCUITDSL_CACHE", str(tmp_path / "cache"))
    spec, weights = tmp_path / "known.circ", tmp_path / "both" / "sae_weights.safetensors"
    name = doubled(tmp_path / "both")
    spec.write_text(f'{HEAD}dictionary r = sae("{name}")\nexpect activation(r[0]) in [-100, 100]\n')

    def figure() -> float:
        with Session() as session:
            (claim,) = session.verify(spec).claims  # type: ignore[union-attr]
        return claim.measured.value  # type: ignore[union-attr, no-any-return]

    first, before = figure(), weights.stat()
    assert figure() == first
    doubled(tmp_path / "other", 0.9)
    weights.write_bytes((tmp_path / "other" / weights.name).read_bytes())
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_size == before.st_size
    assert figure() == pytest.approx(0.9 * first, rel=1e-4)
    assert first > 0


@pytest.mark.parametrize(
    "hook",
    [
        pytest.param("hook_attn_out", marks=pytest.mark.long),
        pytest.param("attn.hook_z", marks=pytest.mark.long),
        "hook_resid_mid",
    ],
)
def test_all_features_within_a_layer_do_what_it_does(hook: str, tmp_path: Path) -> None:
    """Claims of all of them are those of the heads, or of the stream behind them, and no others hold."""
    every = " ".join(f"x[{i}]" for i in range(2 * D))
    whole = "resid3 3.*" if hook == "hook_resid_mid" else "3.*"
    spec = tmp_path / "known.circ"
    spec.write_text(
        f"""{HEAD.replace("128", "64")}dictionary x = sae("{doubled(tmp_path / "x", hook=f"blocks.3.{hook}")}")
features every = {every} at END
nodes whole = {whole} at END
expect knockout(every) : effect <= 10%
expect knockout(whole) : effect <= 10%
expect knockout(every) : effect >= 20%
every -> logits at END : effect <= 10%
whole -> logits at END : effect <= 10%
every -> logits at END : effect >= 20%
expect reconstruction(x) >= 90%
expect reconstruction(x) <= 50%
intervention gone
  replace every with corrupt
  expect logit_diff in [-30, 30]
  expect logit_diff rises by >= 8
"""
    )
    with Session(cache=False) as session:
        report = session.verify(spec)
    claims, (task,) = report.claims, report.tasks  # type: ignore[union-attr]
    assert [claim.verdict for claim in claims] == ["holds", "holds", "fails"] * 2 + ["holds", "fails"] * 2
    replaced = task.clean + claims[0].measured.value * (task.clean - task.corrupt_value)  # type: ignore[union-attr]
    assert claims[8].measured.value == pytest.approx(replaced, abs=1e-3)  # type: ignore[union-attr]
    figures = [claim.measured.value for claim in claims]  # type: ignore[union-attr]
    assert figures[0] == pytest.approx(figures[1], abs=1e-4) and figures[3] == pytest.approx(figures[4], abs=1e-4)


@pytest.mark.parametrize("line", ["scale 3.1 by 0", "set attention(3.1, END -> S2) = 100%", "project out 3.1[0]"])
def test_heads_and_what_they_write_together_are_not_changed_in_one_intervention(line: str, tmp_path: Path) -> None:
    name = doubled(tmp_path / "x", hook="blocks.3.hook_attn_out")
    text = (
        f'{HEAD}dictionary x = sae("{name}")\nintervention some\n  scale x[1] by 0\n  LINE\n  expect logit_diff <= 9\n'
    )
    own, other = (
        loads(text.replace("LINE", each), tmp_path / "it.circ").diagnostics for each in (line, "scale 2.1 by 0")
    )
    assert [(d.code, d.message.partition(":")[2]) for d in own] == [("E121", " they share what they write")]
    assert not [d for d in other if d.severity == "error"]


@pytest.mark.parametrize("part", ["m1[17]", "t1[49]"])
@pytest.mark.parametrize("ablate", ["mean", "zero"])
def test_a_part_and_its_whole_are_knocked_out_side_by_side(pocket: Transformer, part: str, ablate: str) -> None:
    """Other values are put into the part than into the whole: each claim is what it is alone."""
    lines = [f"expect knockout({part} at END, ablate = {ablate}) : lowers", "expect knockout(m1 at END) : lowers"]
    together, *alone = (
        loads(SHIPPED.replace("128", "32") + "\n".join(some) + "\n").verify(pocket, cache=False).claims
        for some in (lines, lines[:1], lines[1:])
    )
    found = [claim.measured.delta for claim in together]  # type: ignore[union-attr]
    assert found == pytest.approx([claim.measured.delta for (claim,) in alone], abs=1e-5)  # type: ignore[union-attr]


def test_what_is_sent_to_all_features_behind_the_heads_is_sent_on(tmp_path: Path) -> None:
    """They explain the stream there: a path through them is the edge; features of what heads write read nothing yet."""
    every, name = " ".join(f"x[{i}]" for i in range(2 * D)), doubled(tmp_path / "x", hook="blocks.3.hook_resid_mid")
    lines = (
        f'dictionary x = sae("{name}")',
        f"features every = {every} at END",
        "path m2 -> every at END -> logits : effect <= 30%",
        "m2 -> logits at END : effect <= 30%",
        "path m2 -> every at END -> logits : effect >= 40%",
        "m2 -> every at END : effect in [-90%, 40%]",
        "m2 -> every at END : effect >= 50%",
        "0.0 -> x[3] at END : lowers",
    )
    text = HEAD.replace("128", "64") + "\n".join(lines) + "\n"
    spec = tmp_path / "known.circ"
    spec.write_text(text)
    with Session(cache=False) as session:
        claims = session.verify(spec).claims  # type: ignore[union-attr]
    assert [claim.verdict for claim in claims[:5]] == ["holds", "holds", "fails", "holds", "fails"]
    assert claims[5].verdict != "holds"
    figures = [claim.measured.value for claim in claims[:4]]  # type: ignore[union-attr]
    assert figures[0] == pytest.approx(figures[1], abs=1e-4) and abs(figures[0]) > 1e-3
    doubled(tmp_path / "heads", hook="blocks.3.hook_attn_out")
    refused = loads(text.replace(f'("{name}")', '("heads")'), spec).diagnostics
    assert any(d.code == "E070" and "nothing can be sent yet" in d.message for d in refused)
