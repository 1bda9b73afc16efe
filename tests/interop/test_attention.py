"""Attention on a prompt, as a notebook shows it."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import circuitdsl
import circuitdsl.models.pocket
from circuitdsl.errors import UserError
from circuitdsl.interop import attention as module
from circuitdsl.interop.attention import attention
from tests.engine.bridge import bridge_of


def test_patterns_are_those_of_transformer_lens() -> None:
    found = attention("pocket/ioi", "mover", 3)
    bridge = bridge_of(Path(circuitdsl.models.pocket.__file__).parent)
    pair = circuitdsl.prompts("ioi", n=4, device="cpu").pairs[3]
    assert [each.text for each in pair.clean.tokens] == list(found.tokens)
    with torch.no_grad():
        _, cache = bridge.run_with_cache(torch.tensor([[each.id for each in pair.clean.tokens]]))
    assert [str(head) for head in found.heads] == ["2.4", "2.5"]
    assert np.abs(found.patterns - cache["blocks.2.attn.hook_pattern"][0, 4:6].numpy()).max() < 1e-5


def test_circuits_vis_draws_it_and_fetches_nothing() -> None:
    if find_spec("circuitsvis") is None:
        pytest.skip("CircuitsVis is not installed: pip install 'circuitdsl[circuitsvis]'")
    found = attention("pocket/ioi", "mover")
    page = found._repr_html_()
    assert page and "AttentionHeads" in page and '"2.5"' in page
    assert 'src="' not in page
    assert "pip install" not in repr(found)


def test_a_token_ends_no_script() -> None:
    if find_spec("circuitsvis") is None:
        pytest.skip("CircuitsVis is not installed: pip install 'circuitdsl[circuitsvis]'")
    found = attention("pocket/ioi", "mover")
    hostile = replace(found, tokens=("</script><script>alert(1)//", *found.tokens[1:]))
    page = hostile._repr_html_()
    assert page and page.count("<script") == (found._repr_html_() or "").count("<script")
    assert page.count("</script>") == 1


def test_without_it_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = attention("pocket/ioi", "mover", corrupt=True)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert found._repr_html_() is None
    assert repr(found).startswith(f"attention of 2.4, 2.5 on {len(found.tokens)} tokens; attention is drawn by")
    assert "\n" not in repr(found)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"group": "movr"}, "there is no group movr; did you mean 'mover'?"),
        ({"group": "decider"}, "no heads are in decider"),
        ({"group": "mover", "task": "x"}, "there is no task x"),
        ({"group": "mover", "prompt": -1}, "prompts are counted from 0"),
    ],
)
def test_a_wrong_name_is_refused(how: Any, says: str) -> None:
    with pytest.raises(UserError) as refused:
        attention("pocket/ioi", **how)
    assert says in refused.value.message
