"""Features as nodes: patching them equals a brute force that is written down here; the identities of semantics §8."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from circuitdsl.circuit.features import feature
from circuitdsl.circuit.nodes import ERROR, EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.dictionaries import read_dictionary
from circuitdsl.dictionaries.record import Dictionary
from circuitdsl.engine.experiment import Experiment
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import run
from circuitdsl.models.parts import Transformer
from tests.drawing import examples
from tests.engine import reference
from tests.engine.small_models import Case, make_case, only_named

CLOSE = 1e-4
NAMES = ("A", "B", "END")
drawn = settings(
    max_examples=examples(12, 60),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def written(folder: Path, tensors: Mapping[str, Tensor], reads: str, writes: str, **config: object) -> Dictionary:
    """A dictionary as SAELens writes it, read again."""
    folder.mkdir(parents=True)
    d_in, d_sae = tensors["W_enc"].shape
    kind = "standard" if reads == writes else "transcoder"
    hooks = {"hook_name": reads} | ({} if reads == writes else {"hook_name_out": writes})
    base = {"architecture": kind, "d_in": d_in, "d_sae": d_sae, "metadata": {"sae_lens_version": "6.0.0", **hooks}}
    (folder / "cfg.json").write_text(json.dumps({**base, "apply_b_dec_to_input": False, **config}))
    stored = {key: each.detach().clone().contiguous() for key, each in tensors.items()}
    save_file(stored, folder / "sae_weights.safetensors")
    return read_dictionary(str(folder))


def random(d: int, features: int, seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (d, features), "W_dec": (features, d), "b_enc": (features,), "b_dec": (d,)}
    return {name: torch.randn(shape, generator=draw) / 3 for name, shape in shapes.items()}


def all_of(name: str, found: Dictionary) -> list[Node]:
    """Every feature, and the error."""
    return [feature(name, found, i) for i in (*range(found.d_sae), ERROR)]


def three(model: Transformer, folder: Path) -> list[Node]:
    """Features of a transcoder, of an autoencoder of an MLP and of one of the stream, with the errors."""
    d, top = model.d_model, model.n_layers - 2
    places = (
        ("t", "blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out"),
        ("s", f"blocks.{top}.hook_mlp_out", f"blocks.{top}.hook_mlp_out"),
        ("r", "blocks.0.hook_resid_post", "blocks.0.hook_resid_post"),
    )
    made = [written(folder / name, random(d, 5, i), *hooks) for i, (name, *hooks) in enumerate(places)]
    return [node for (name, *_), found in zip(places, made, strict=True) for node in all_of(name, found)]


# --- by brute force -----------------------------------------------------------------------------------


class Slow:
    """One prompt of a run: every term computed from the tokens on, features by their definition."""

    def __init__(
        self, model: Transformer, nodes: list[Node], experiment: Experiment, at: Mapping[Position, set[int]]
    ) -> None:
        self.model, self.nodes, self.experiment, self.at = model, nodes, experiment, at

    def run(
        self, tokens: Tensor, other: Mapping[Node, Tensor] | None = None, put: Mapping[Node, Tensor] | None = None
    ) -> None:
        """Run, with the terms of `put` at the sites, and those of `other` in what patched inputs read."""
        self.now: dict[Node, Tensor] = {}
        self.shifts: list[tuple[float, Tensor]] = []
        self.terms: dict[Node, Tensor] = {}  # of the features
        self.other = other
        for stage in reference.stages(self.model):
            first = stage[0]
            if first.kind == "head" and first.layer > 0:
                self.stream(first.layer, put)
            self.now |= reference.write(self.model, tokens, stage, self.read)
            for site in self.experiment.sites if put is not None else ():
                if site.node in stage:
                    for pos in self.at[site.position]:
                        self.now[site.node][pos] = put[site.node][pos]
            if first.kind == "mlp":
                self.features(first, self.now[first], put, lambda change, whole=first: self.now[whole].add_(change))
        self.stream(self.model.n_layers, put)
        self.logits = self.model.logits(self.read(LOGITS, "in")[-1])

    def stream(self, layer: int, put: Mapping[Node, Tensor] | None) -> None:
        whole = Node("resid", layer)
        resid = self.seen(Node("head", layer, 0) if layer < self.model.n_layers else LOGITS)
        self.features(whole, resid, put, lambda change: self.shifts.append((whole.stage(self.model.parallel), change)))

    def features(
        self, whole: Node, value: Tensor, put: Mapping[Node, Tensor] | None, shift: Callable[[Tensor], object]
    ) -> None:
        """What features of a node write now; those that are knocked out write something else."""
        mine = [node for node in self.nodes if node.whole == whole]
        for node in mine:
            self.terms[node] = self.term(node, value).clone()
        change = torch.zeros_like(value)
        for site in self.experiment.sites if put is not None else ():
            if site.node in mine:
                for pos in self.at[site.position] if Site(whole, site.position) not in self.experiment.sites else ():
                    change[pos] += put[site.node][pos] - self.terms[site.node][pos]
                    self.terms[site.node][pos] = put[site.node][pos]
        shift(change)

    def term(self, node: Node, value: Tensor) -> Tensor:
        tensors, transcoder = TENSORS[node.of]
        norm = self.model.blocks[node.layer].mlp_norm if transcoder else None
        x = norm(self.read(node.whole, "in")) if norm else value
        f = (x @ tensors["W_enc"] + tensors["b_enc"]).relu()
        if node.index != ERROR:
            return torch.outer(f[:, node.index], tensors["W_dec"][node.index])
        return value - f @ tensors["W_dec"] - tensors["b_dec"]

    def seen(self, node: Node) -> Tensor:
        total = reference.residual(self.model, self.now, node)
        stage = node.stage(self.model.parallel)
        return sum((shift for at, shift in self.shifts if at < stage), total)

    def read(self, node: Node, port: str) -> Tensor:
        resid = self.seen(node).clone()
        if self.other is not None:
            into = [edge for edge in self.experiment.edges if (edge.receiver.node, edge.receiver.port) == (node, port)]
            pairs = {(edge.sender, pos) for edge in into for pos in self.at[edge.position]}
            for sender, pos in pairs:
                if not sender.of or (sender.whole, pos) not in pairs:
                    resid[pos] += self.other[sender][pos] - (self.terms if sender.of else self.now)[sender][pos]
        return resid


#: the tensors of dictionaries by what nodes carry, and whether they read what an MLP reads
TENSORS: dict[str, tuple[Mapping[str, Tensor], bool]] = {}


def note(nodes: list[Node]) -> None:
    from circuitdsl.circuit.features import dictionary_of

    for of, node in {node.of: node for node in nodes}.items():
        found = dictionary_of(node)
        tensors = {name: found.tensors[name].read() for name in ("W_enc", "W_dec", "b_enc", "b_dec")}
        TENSORS[of] = tensors | {"W_enc": tensors["W_enc"].T}, found.is_transcoder


def slowly(case: Case, nodes: list[Node], experiment: Experiment) -> Tensor:
    """Logits at END of every prompt's patched run."""
    rows = []
    for i, (clean, corrupt) in enumerate(zip(case.clean, case.corrupt, strict=True)):
        if experiment.direction == "denoise":
            clean, corrupt = corrupt, clean
        at = {
            p: set(range(len(clean))) if p == EVERYWHERE else {int(t) for t in case.positions[p][i] if t >= 0}
            for p in experiment.positions
        }
        one = Slow(case.model, nodes, experiment, at)
        one.run(corrupt)
        other = {**one.now, **one.terms}
        put = {node: torch.zeros_like(term) for node, term in other.items()} if experiment.ablate == "zero" else other
        one.run(clean, {k: v.clone() for k, v in other.items()}, {k: v.clone() for k, v in put.items()})
        rows.append(one.logits)
    return torch.stack(rows)


# --- drawing ------------------------------------------------------------------------------------------


def positions() -> st.SearchStrategy[Position]:
    return st.one_of(st.just(EVERYWHERE), st.sampled_from(NAMES).map(Position))


@st.composite
def edges(draw: st.DrawFn, model: Transformer, nodes: list[Node]) -> Edge:
    """An edge from a feature, or at times from a head or MLP."""
    plain = [node for stage in reference.stages(model) for node in stage]
    sender = draw(st.sampled_from(nodes) | st.sampled_from(plain))
    later = [node for node in (*plain, LOGITS) if node.stage(model.parallel) > sender.stage(model.parallel)]
    receiver = draw(st.sampled_from(later))
    port = draw(st.sampled_from(("q", "k", "v"))) if receiver.kind == "head" else "in"
    place = Position("END") if receiver == LOGITS else draw(positions())
    return Edge(sender, Input(receiver, port), place)


def experiments(model: Transformer, nodes: list[Node]) -> st.SearchStrategy[Experiment]:
    plain = [node for stage in reference.stages(model) for node in stage]
    sites = st.builds(Site, st.sampled_from(nodes) | st.sampled_from(plain), positions())
    return st.builds(
        Experiment,
        edges=st.frozensets(edges(model, nodes), max_size=4),
        sites=st.frozensets(sites, max_size=3),
        ablate=st.sampled_from(("corrupt", "zero")),
        direction=st.sampled_from(("noise", "denoise")),
    ).filter(lambda one: bool(one.edges or one.sites) and (one.ablate == "corrupt" or bool(one.sites)))


def with_features(model: Transformer, nodes: list[Node], seed: int = 0) -> Case:
    case = make_case(model, seed)
    return replace(case, runs=run(model, case.clean, case.corrupt, [*only_named(model), *nodes]))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_patching_features_equals_brute_force(family: str, random_model: Callable, tmp_path: Path) -> None:
    model = random_model(family)
    nodes = three(model, tmp_path)
    note(nodes)
    case = with_features(model, nodes)

    @drawn
    @given(st.lists(experiments(model, nodes), min_size=1, max_size=3))
    def check(some: list[Experiment]) -> None:
        fast = effects(case.runs, some, case.positions, case.vocabulary)
        for experiment, logits in zip(some, fast, strict=True):
            assert (logits - slowly(case, nodes, experiment)).abs().max() < CLOSE, str(experiment)

    check()
