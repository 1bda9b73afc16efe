"""Claims about features of cross-layer transcoders, and what is not claimed of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from circuitdsl.api import loads
from circuitdsl.dictionaries import read_dictionary
from circuitdsl.report.report import Report
from circuitdsl.verify.session import Session
from tests.engine.test_crossing import crossing

HEAD = 'circuit crossing\nmodel "pocket"\ntask ioi(corrupt = abc, prompts = 128)\n'
LAYERS = 4


def shipped(layer: int) -> dict[str, Tensor]:
    tensors = read_dictionary(f"pocket/transcoders/{layer}").tensors
    return {name: tensors[name].read() for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`alone`: the transcoders of the pocket model; `later`: one feature of layer 1 writes into layer 2 instead."""
    there = tmp_path_factory.mktemp("crossing")
    tensors = []
    for layer in range(LAYERS):
        own = shipped(layer)
        later = torch.zeros(len(own["W_dec"]), LAYERS - layer - 1, own["W_dec"].shape[1])
        tensors.append({**own, "W_dec": torch.cat((own["W_dec"][:, None], later), dim=1)})
    crossing(there / "alone", tensors, "ln2.hook_normalized")
    rows = tensors[1]["W_dec"]
    rows[49] = rows[49].roll(1, dims=0)
    crossing(there / "later", tensors, "ln2.hook_normalized")
    return there


def lines(spec: Path, *of: str) -> Report:
    (spec / "crossing.circ").write_text(HEAD + "\n".join(of) + "\n")
    with Session(cache=False) as session:
        return session.verify(spec / "crossing.circ")  # type: ignore[return-value]


CLAIMS = (
    "expect knockout({0}[49] {0}[144] at END) : lowers",
    "expect knockout({0}[49] at END, ablate = mean) : effect in [-10%, 10%]",
    "{0}[49] -> logits at END : effect in [-10%, 10%]",
    "{0}[144] -> m3 at END : lowers",
    "{0}[49] -> 2.0.q at END : raises",
    "expect activation({0}[49]) > 5",
    "expect fires({0}[49], at = END) >= 20%",
    "expect attribution({0}[49]) > 100",
    "expect reconstruction({0}) >= 95%",
    "when 0.6 at END is knocked out",
    "  expect knockout({0}[49] at END) : effect in [-10%, 10%]",
    "  expect attribution({0}[49]) < 100",
)


def test_without_later_rows_it_is_a_transcoder_of_one_layer(folder: Path) -> None:
    found = [
        lines(folder, f'dictionary {name} = transcoder("{path}")', *(each.format(name) for each in CLAIMS)).claims
        for name, path in (("c1", "alone/W_enc_1.safetensors"), ("t1", "pocket/transcoders/1"))
    ]
    for crossed, plain in zip(*found, strict=True):
        assert crossed.verdict == plain.verdict and crossed.measured.n == plain.measured.n
        assert crossed.measured.value == pytest.approx(plain.measured.value, abs=1e-5), crossed.text
    assert {claim.verdict for claim in found[0]} >= {"holds", "fails"}


def test_what_is_written_into_a_later_layer_is_read_behind_it(folder: Path) -> None:
    later, plain = (
        lines(
            folder,
            f'dictionary c1 = transcoder("{path}")',
            "c1[49] -> logits at END : effect in [-10%, 10%]",
            "c1[49] -> 3.2.v at END : effect in [-10%, 10%]",
            "expect attribution(c1[49]) > 0",
            "c1[49] -> m2 at END : negligible",
            "c1[49] -> m2 at END : lowers",
            "expect knockout(c1[49] at END) : effect in [-10%, 10%]",
        ).claims
        for path in ("later/W_enc_1.safetensors", "pocket/transcoders/1")
    )
    for one, other in zip(later[:3], plain[:3], strict=True):
        assert one.measured.value == pytest.approx(other.measured.value, abs=1e-5), one.text
    assert [claim.verdict for claim in later[3:5]] == ["holds", "fails"]
    assert later[3].measured.value == pytest.approx(0, abs=1e-6) != pytest.approx(plain[3].measured.value, abs=1e-4)
    assert later[5].measured.value != pytest.approx(plain[5].measured.value, abs=1e-3)


SET = "".join(f'dictionary c{i} = transcoder("later/W_enc_{i}.safetensors")\n' for i in range(LAYERS))
REFUSED = {
    "c1[error] -> logits at END : negligible": "c1.error. is no node",
    "0.6 -> c1[49] at END : lowers": "to which nothing can be sent yet",
    "path c1[49] -> 2.0.q at END -> logits : lowers": "no path starts at",
    "intervention off\n  scale c1[49] by 0\n  expect accuracy >= 0%": "do not change it yet",
    "intervention off\n  scale 0.6 by 0\n  expect attribution(c1[49]) > 0": "in a changed model",
    "features some = c1[49] at END\nsome -> logits at END : lowers\nexpect faithfulness >= 10%": "not kept alone",
    "features some = c1[49] at END\nexpect knockout(some + m2 at END) : lowers": "m2 and c1.49. cannot",
    "expect knockout(c1[49] + t2[5]) : lowers": "divided in two ways",
    "expect knockout(c1[49] + m1[7]) : lowers": "divided in two ways",
    "edges via mlps\nc1[49] -> logits at END : lowers": "not measured with c1.49.",
    "when m2 at END is knocked out\n  expect attribution(c1[49]) > 0": "m2 and c1.49. cannot",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused(line: str, folder: Path) -> None:
    text = f'{HEAD}{SET}dictionary t2 = transcoder("pocket/transcoders/2")\n{line}\n'
    said = " ".join(each.message for each in loads(text, folder / "crossing.circ").diagnostics)
    assert re.search(REFUSED[line], said), said


def test_attribution_under_a_condition_is_of_all_that_is_written(folder: Path) -> None:
    claims = "when 0.6 at END is knocked out", "  expect attribution(c1[49]) > 0"
    later, plain = (
        lines(folder, f'dictionary c1 = transcoder("{path}")', *claims).claims[0].measured.value
        for path in ("later/W_enc_1.safetensors", "pocket/transcoders/1")
    )
    assert later == pytest.approx(plain, abs=1e-5) != pytest.approx(0, abs=1e-3)


def test_features_of_several_layers_of_one_set_go_together(folder: Path) -> None:
    found = lines(folder, SET, "expect knockout(c1[49] + c2[129] + c3[142] at END) : effect in [-20%, 20%]")
    assert found.claims[0].verdict in ("holds", "undecided"), found.claims[0].reason
