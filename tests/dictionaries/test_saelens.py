"""Dictionaries that SAELens wrote encode and decode as it does; `fixtures/dictionaries/make.py` made the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from circuitdsl.dictionaries import read_dictionary
from circuitdsl.dictionaries.coder import load
from circuitdsl.dictionaries.record import Hook

FIXTURES = Path(__file__).parent.parent / "fixtures" / "dictionaries"
NUMBERS = json.loads((FIXTURES / "numbers.json").read_text())
X = torch.tensor(NUMBERS["x"])


@pytest.mark.parametrize("name", NUMBERS["of"])
def test_it_encodes_and_decodes_as_saelens_does(name: str) -> None:
    coder, wanted = load(read_dictionary(str(FIXTURES / name))), NUMBERS["of"][name]
    f = coder.encode(X)
    assert 0 < int((f > 0).sum()) < f.numel()
    torch.testing.assert_close(f, torch.tensor(wanted["encode"]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(coder.decode(f, X), torch.tensor(wanted["forward"]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NUMBERS["of"])
def test_some_features_alone_are_those_among_all(name: str) -> None:
    found = read_dictionary(str(FIXTURES / name))
    every, some = load(found), load(found, [7, 2])
    torch.testing.assert_close(some.encode(X), every.encode(X)[:, [7, 2]], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(some.d, every.d[[7, 2]])
    assert len(some.d) == 2
    if found.encoding.activation != "topk":
        assert len(some.W_enc) == 2


@pytest.mark.parametrize(
    ("name", "reads", "writes"),
    [
        ("old_standard", Hook("resid_pre", 1), Hook("resid_pre", 1)),
        ("standard", Hook("resid_post", 1), Hook("resid_post", 1)),
        ("hook_z", Hook("z", 1), Hook("z", 1)),
        ("transcoder", Hook("mlp_in", 1), Hook("mlp_out", 1)),
    ],
)
def test_where_it_sits(name: str, reads: Hook, writes: Hook) -> None:
    found = read_dictionary(str(FIXTURES / name))
    assert (found.reads, found.writes) == (reads, (writes,))


def test_what_the_files_say_besides() -> None:
    found = read_dictionary(str(FIXTURES / "old_topk"))
    assert (found.model, found.centred, found.d_in, found.d_sae) == ("gpt2-small", True, 6, 10)
    assert str(found.encoding) == "top 2"
    assert read_dictionary(str(FIXTURES / "topk")).sha256 != found.sha256
