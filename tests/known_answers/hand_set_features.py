"""Dictionaries of the hand-set model `lookup`, whose features are facts, and claims about them.

- `r2`, of the stream before the movers: which name is suppressed.
- `r3`, of the stream that the last MLP reads: which name the movers tell; decoys fire alike and write where only noise
  reads.
- `t3`, the last MLP as a transcoder: a neuron for each name, which writes it as the answer, and 52 of noise.

In `r2` and `r3`, `HUM` features fire everywhere and write where nothing reads, one never fires, and the others are the
coordinates of the other subspaces.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from circuitdsl.circuit.features import feature
from circuitdsl.circuit.nodes import ERROR, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.dictionaries import read_dictionary
from circuitdsl.engine.experiment import Experiment
from circuitdsl.models.load import load_model
from tests.known_answers.hand_set import CONSTANT, NAMES, SUBSPACES, Weights, build_lookup, save_hand_set
from tests.known_answers.hand_set_claims import (
    NAMES_AT,
    PROMPTS,
    Figure,
    KnownClaim,
    Population,
    Subject,
    _about,
    _bound,
    _bounds,
    _mistaken,
    _percent,
    node,
)
from tests.known_answers.hand_set_runs import Tally, sample_bench, verified
from tests.known_answers.hand_set_tasks import population
from tests.known_answers.hand_set_truth import Brute, Known

MANY, HUM = len(NAMES), 24
MEANT, DECOYS, HUMS, DEAD = range(MANY), range(MANY, 2 * MANY), range(2 * MANY, 2 * MANY + HUM), 2 * MANY + HUM
#: effects of which nothing true is claimed
SMALL = 0.05
#: what is sent to features
SENDERS = {
    "r2": ("0.0", "1.2 1.3", "m1", "embed"),
    "r3": ("2.3 2.4", "2.4", "1.2", "m2", "m1", "embed"),
    "t3": ("2.3 2.4", "3.1", "m2", "embed"),
}
HOOKS = {
    "r2": ("blocks.1.hook_resid_post", "blocks.1.hook_resid_post"),
    "r3": ("blocks.2.hook_resid_post", "blocks.2.hook_resid_post"),
    "t3": ("blocks.3.ln2.hook_normalized", "blocks.3.hook_mlp_out"),
}


def _of_stream(w: Weights, space: str, above: float) -> dict[str, Tensor]:
    """Features of a subspace for each name, decoys, hums, one that is dead, and two for each dimension of the rest."""
    codes = w.codes[list(NAMES)] @ w.space[space].T
    idle = torch.linalg.qr(torch.cat([torch.ones(len(w.one), 1), *w.space.values()], 1), "complete").Q
    idle = idle[:, 1 + sum(SUBSPACES.values()) :]  # no head writes or reads it, but for noise
    hum = w.one.T + 0.3 * w.normal(HUM, len(codes)) @ codes
    rest = torch.cat([each for name, each in w.space.items() if name not in ("constant", "junk", space)], 1).T
    reads = torch.cat([codes, codes, hum, torch.zeros(1, len(w.one)), rest, -rest])
    junk = 0.3 * w.codes[list(NAMES)] @ w.space["junk"].T
    writes = torch.cat([codes, junk, 0.1 * idle.T[: HUM + 1], rest, -rest])
    thresholds = torch.full((len(reads),), 0.0)
    thresholds[: 2 * MANY] = above
    b_dec = CONSTANT * w.space["constant"][:, 0]
    return {"W_enc": reads.T, "b_enc": 0 * thresholds, "W_dec": writes, "threshold": thresholds, "b_dec": b_dec}


def save_dictionaries(folder: Path, model, w: Weights) -> list[Known]:
    """Write the three as SAELens does; what they are, spelt out for the brute force."""
    mlp = model.blocks[3].mlp
    tensors = {
        "r2": _of_stream(w, "suppressed", 0.45),
        "r3": _of_stream(w, "told", 0.6),
        "t3": {"W_enc": mlp.up.weight.T, "b_enc": mlp.up.bias, "W_dec": mlp.down.weight.T, "b_dec": mlp.down.bias},
    }
    found = []
    for name, (reads, writes) in HOOKS.items():
        own = {key: each.detach().clone().contiguous() for key, each in tensors[name].items()}
        m, d = own["W_dec"].shape
        (folder / name).mkdir()
        save_file(own, folder / name / "sae_weights.safetensors")
        hooks = {"hook_name": reads} | ({} if reads == writes else {"hook_name_out": writes})
        kind = "transcoder" if name == "t3" else "jumprelu"
        config = {"architecture": kind, "d_in": d, "d_out": d, "d_sae": m, "apply_b_dec_to_input": False}
        config["metadata"] = {"sae_lens_version": "6.51.1", **hooks}
        (folder / name / "cfg.json").write_text(json.dumps(config))
        first = feature(name, read_dictionary(str(folder / name)), 0)
        above = own.get("threshold", torch.zeros(m))
        weights = (own[key] for key in ("W_enc", "b_enc", "W_dec", "b_dec"))
        found.append(Known(first.whole, first.of, above, *weights))
    return found


class Features(Population):
    """The model on all prompts of its task, with its dictionaries in a folder."""

    def __init__(self, folder: Path, size: int) -> None:
        w = Weights(0)
        build_lookup(w)
        self.folder = folder
        super().__init__(
            load_model(save_hand_set("lookup", folder / "lookup"), device="cpu"), population("repeated_name", size)
        )
        found = save_dictionaries(folder, self.model, w)
        self.of = dict(zip(HOOKS, found, strict=True))
        self.brute = Brute(self.model, self.data.pairs, found)

    def _measured(self, subject: Subject) -> Figure:
        if not isinstance(subject, Read):
            return super()._measured(subject)
        values = self.brute.activations(subject.nodes, subject.position, subject.fires)
        return Figure(values.mean(), values.std() / PROMPTS**0.5)

    def node(self, name: str) -> Node:
        """`r3[4]`, `t3[error]`, or what is no feature."""
        of, _, index = name.rstrip("]").partition("[")
        return self.of[of].node(ERROR if index == "error" else int(index)) if index else node(name)

    # --- what claims are about

    def edge(self, senders: str, receivers: str, position: str) -> Subject:
        """`edge("r3[0] r3[1]", "2.3.q 2.4.q", "END")`"""
        inputs = [
            Input(node(name[:-2]), name[-1]) if name[-2] == "." else Input(self.node(name), "in")
            for name in receivers.split()
        ]
        edges = frozenset(Edge(self.node(s), r, Position(position)) for s in senders.split() for r in inputs)
        read = [name.removesuffix(f".{inputs[0].port}") for name in receivers.split()]
        port = "" if inputs[0].port == "in" else f".{inputs[0].port}"
        text = f"{_listed(senders.split())} -> {_listed(read)}{port} at {position}"
        return Subject(text, Experiment(edges=edges))

    def knockout(self, names: str, position: str, ablate: Literal["corrupt", "zero"] = "corrupt") -> Subject:
        sites = frozenset(Site(self.node(name), Position(position)) for name in names.split())
        how = "" if ablate == "corrupt" else f", ablate = {ablate}"
        group, line = _group(names, position)
        return Subject(f"expect knockout({group}{how})", Experiment(sites=sites, ablate=ablate), groups=(line,))

    def restored(self, names: str, position: str) -> Subject:
        plain = self.knockout(names, position)
        assert plain.experiment is not None
        text = plain.text.replace("knockout", "denoise")
        return Subject(text, replace(plain.experiment, direction="denoise"), groups=plain.groups)

    def read(self, word: Literal["activation", "fires"], names: str, position: str) -> Subject:
        group, line = _group(names, position)
        return Read(
            f"expect {word}({group})",
            attention=(LOGITS, "", ""),
            groups=(line,),
            nodes=tuple(map(self.node, names.split())),
            position=position,
            fires=word == "fires",
        )


@dataclass(frozen=True)
class Read(Subject):
    """What is read off the clean run: the mean activation of features, or how often all of them fire."""

    nodes: tuple[Node, ...] = ()
    position: str = ""
    fires: bool = False


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"({' '.join(names)})"


def _group(names: str, position: str) -> tuple[str, str]:
    """A group's name and the line that defines it."""
    name = "".join(c if c.isalnum() else "_" for c in f"g_{names}_{position}".lower())
    return name, f"nodes {name} = {names} at {position}"


# --- claims -------------------------------------------------------------------------------------------


def named(of: str, indices: Iterable[int]) -> str:
    return " ".join(f"{of}[{i}]" for i in indices)


def designed(whole: Features) -> list[Subject]:
    """What the dictionaries were made for, and what looks like it."""
    suppressed, told, answers = (named(of, MEANT) for of in HOOKS)
    movers = "2.3.q 2.4.q"
    edges = [
        (suppressed, movers, "END"),
        (suppressed, "2.3.v 2.4.v", "END"),
        (named("r2", MEANT[:5]), movers, "END"),
        (named("r2", DECOYS), movers, "END"),
        ("r2[error]", movers, "END"),
        (told, "m3", "END"),
        ("r3[4]", "m3", "END"),
        (told, "logits", "END"),
        (named("r3", DECOYS), "m3", "END"),
        (named("r3", HUMS), "m3", "END"),
        (answers, "logits", "END"),
        ("t3[7]", "logits", "END"),
        (named("t3", range(20, 40)), "logits", "END"),
        ("2.3 2.4", told, "END"),
        ("2.3 2.4", named("r3", DECOYS), "END"),
        ("2.3", "r3[4]", "END"),
        (told, answers, "END"),
        (named("r3", DECOYS), answers, "END"),
    ]
    found = [whole.edge(*each) for each in edges]
    for names in (suppressed, told, named("r3", DECOYS), "r3[4] r3[7]", answers):
        found += [whole.knockout(names, "END"), whole.knockout(names, "END", "zero"), whole.restored(names, "END")]
    for names in ("r3[4]", "r3[16]", "t3[7]", named("r3", HUMS[:2]), f"r3[{DEAD}]"):
        found += [whole.read("activation", names, "END"), whole.read("fires", names, "END")]
    return [*found, whole.read("fires", "r2[3]", "S2"), whole.read("activation", told, "IO")]


def random_subjects(whole: Features, many: int, draw: random.Random) -> Iterator[Subject]:
    """Any features of one dictionary at any position: sent to any reader, knocked out, restored, or read."""
    readers = {
        "r2": ("2.3.q 2.4.q", "2.3.q", "2.4.v", "2.6.q", "2.3.k", "m2", "m3", "logits"),
        "r3": ("m3", "m3", "3.1.v", "3.4.q", "logits"),
        "t3": ("logits",),
    }
    for _ in range(many):
        of = draw.choice(list(HOOKS))
        last = len(whole.of[of].W_dec)
        pool = draw.choice([MEANT, MEANT, DECOYS if of != "t3" else MEANT, range(last)])
        names = named(of, sorted(draw.sample(pool, draw.choice([1, 1, 2, 4, len(MEANT)]))))
        senders = draw.choice(SENDERS[of])
        if of != "r2" and draw.random() < 0.5:
            senders = named("r2" if of == "r3" else "r3", draw.sample(MEANT, draw.choice([1, 4, MANY])))
        position = draw.choice(("END", "END", "END", *NAMES_AT))
        reader = draw.choice(readers[of])
        if reader == "logits" or reader.endswith("q"):
            position = "END"
        yield draw.choice(
            [
                whole.edge(names, reader, position),
                whole.edge(names, reader, position),
                whole.edge(senders, names, position),
                whole.knockout(names, position, draw.choice(("corrupt", "zero"))),
                whole.restored(names, position),
                whole.read(draw.choice(("activation", "fires")), names, position),
            ]
        )


def claims_on(whole: Features, subjects: Iterable[Subject]) -> Iterator[KnownClaim]:
    """What is so, and the same with the wrong sign or size."""
    for subject in subjects:
        figure = whole.figure(subject)
        if isinstance(subject, Read):
            written = _percent if subject.fires else "{:.6f}".format
            if figure.error:
                yield from _bounds(subject, "", figure.value, figure.error, written)
                continue
            low, high = figure.value - 0.2, figure.value + 0.2  # the same on all prompts
            yield _bound(subject, f">= {written(max(0.0, low))}", True, "size")
            if high <= 1:
                yield _bound(subject, f">= {written(high)}", False, "size")
            if low >= 0:
                yield _bound(subject, f"<= {written(low)}", False, "size")
        elif figure.changed:
            # of a small effect a sample shows too little: more than the farthest prompt seen is allowed for
            small = abs(figure.value) < SMALL
            yield from (claim for claim in _about(whole, subject) if not (claim.true and small))


def mistaken(whole: Features, subjects: Iterable[Subject], draw: random.Random) -> Iterator[KnownClaim]:
    """What is true of features that do something, claimed of random ones: no more of it than is false."""
    strong = [s for s in designed(whole) if s.experiment and abs(whole.figure(s).value) > 0.1]
    for subject in subjects:
        if subject.experiment is not None:
            found = _mistaken(whole, subject, "feature", whole.figure(draw.choice(strong)))
            yield from (claim for claim in found if not claim.true)


def spec(part: Sequence[KnownClaim]) -> str:
    """A whole spec of some claims."""
    lines = [f'dictionary {of} = {"transcoder" if of == "t3" else "sae"}("{of}")' for of in HOOKS]
    groups = dict.fromkeys(line for claim in part for line in claim.groups)
    head = ["circuit known", 'model "lookup"', f'task known = file("known.jsonl", prompts = {PROMPTS})', *lines]
    return "\n".join([*head, *groups, *(claim.line for claim in part)]) + "\n"


def tallied(whole: Features, found: Iterable[KnownClaim], seeds: Iterable[int], size: int = 30) -> Tally:
    """What comes of all claims, so many to a spec, on a sample of each seed."""
    claims, tally = list(dict.fromkeys(found)), Tally()
    random.Random(0).shuffle(claims)
    # a feature that some group has elsewhere reads there: edges into features stand where no groups are
    into = [claim for claim in claims if re.search(r"-> \(?[rt]\d\[", claim.line)]
    rest = [claim for claim in claims if claim not in set(into)]
    for seed in seeds:
        where = sample_bench(whole, seed)
        for mine in (rest, into):
            for part in (mine[start : start + size] for start in range(0, len(mine), size)):
                tally.add(part, verified(spec(part), where, folder=whole.folder))
    return tally
