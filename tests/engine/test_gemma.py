"""A Gemma with its tokenizer, from a saved directory to a report: prompts begin with `<bos>`, and numbers are exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from circuitdsl.api import loads
from circuitdsl.circuit.nodes import LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.engine.experiment import Experiment
from circuitdsl.models.load import load_model
from circuitdsl.models.parts import Transformer
from circuitdsl.tasks.dataset import PromptPair
from circuitdsl.tasks.ioi import NAMES, OBJECTS, PLACES, TEMPLATES
from circuitdsl.verify.prompts import make_data
from tests.engine import reference
from tests.engine.small_models import save_random

END, S2 = Position("END"), Position("S2")
EARLY, LATE = (Node("head", 0, 1), Node("head", 0, 2)), (Node("head", 2, 0), Node("head", 2, 1))
SPEC = """
circuit small
task ioi(corrupt = abc, prompts = 8)
heads early = 0.1 0.2 at END
heads late  = 2.0 2.1 at END

0.1   -> 1.2.q  at END          : delta <= 100
0.0   -> 1.1.v  at S2           : delta <= 100
late  -> logits at END          : delta <= 100
early -> logits at END via mlps : delta <= 100
expect knockout(early) : delta <= 100
"""
#: the same, in order
EXPERIMENTS = (
    Experiment(frozenset([Edge(EARLY[0], Input(Node("head", 1, 2), "q"), END)])),
    Experiment(frozenset([Edge(Node("head", 0, 0), Input(Node("head", 1, 1), "v"), S2)])),
    Experiment(frozenset(Edge(head, Input(LOGITS, "in"), END) for head in LATE)),
    Experiment(frozenset(Edge(head, Input(LOGITS, "in"), END) for head in EARLY), via_mlps=True),
    Experiment(sites=frozenset(Site(head, END) for head in EARLY)),
)


def save_tokenizer(path: Path) -> tuple[int, int]:
    """Gemma's tokenizer, for the words of IOI: how many tokens it has, and which one begins every text."""
    from transformers import GemmaTokenizer

    written = " ".join(TEMPLATES).replace("{", " ").replace("}", " ").split()
    words = sorted({f"▁{word}" for word in (*NAMES, *OBJECTS, *PLACES, *written)})
    merges = list(dict.fromkeys((word[:i], word[i]) for word in words for i in range(1, len(word))))
    pieces = sorted({piece for word in words for piece in word} | {a + b for a, b in merges})
    special = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
    vocabulary = {piece: i for i, piece in enumerate((*special, *pieces))}
    tokenizer = GemmaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True)
    tokenizer.save_pretrained(path)
    return len(vocabulary), vocabulary["<bos>"]


def by_brute_force(model: Transformer, pair: PromptPair, experiment: Experiment) -> float:
    """The logit difference of one patched prompt."""
    clean, corrupt = (torch.tensor([tokens]) for tokens in (pair.clean_tokens, pair.corrupt_tokens))
    places = {position: torch.tensor([pair.positions[position.name]]) for position in experiment.positions}
    logits = reference.logits(model, clean, corrupt, experiment, places)[0]
    return float(logits[list(pair.answers)].mean() - logits[list(pair.distractors)].mean())


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
def test_a_saved_gemma_is_verified_exactly(family: str, tmp_path: Path) -> None:
    vocabulary, begin = save_tokenizer(tmp_path)
    save_random(family, tmp_path, vocab_size=vocabulary, max_position_embeddings=32, bos_token_id=begin)
    model = load_model(tmp_path, device="cpu")
    spec = loads(SPEC + f'model "{tmp_path}"')
    report = spec.verify(model, early_stop=False, cache=False)
    pairs = make_data(spec.circuit(), spec.circuit().tasks[0], model).pairs
    assert report.model.bos and all(pair.clean_tokens[0] == begin for pair in pairs)
    assert min(len(pair.clean_tokens) for pair in pairs) > 4, "longer than the window"
    plain = [by_brute_force(model, pair, Experiment()) for pair in pairs]
    for claim, experiment in zip(report.claims, EXPERIMENTS, strict=True):
        patched = [by_brute_force(model, pair, experiment) for pair in pairs]
        changes = [p - c for p, c in zip(patched, plain, strict=True)]
        assert claim.measured is not None and claim.measured.n == len(pairs)
        assert claim.measured.value == pytest.approx(sum(changes) / len(pairs), abs=1e-4), claim.text
        assert max(map(abs, changes)) > 1e-3
