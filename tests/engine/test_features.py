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

from circuitdsl.circuit.changes import Intervention, Scale
from circuitdsl.circuit.features import feature
from circuitdsl.circuit.nodes import ERROR, EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site, receives
from circuitdsl.dictionaries import read_dictionary
from circuitdsl.dictionaries.record import Dictionary, DictionaryError
from circuitdsl.engine.experiment import Experiment, check
from circuitdsl.engine.intervene import intervene
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import mean_terms, run
from circuitdsl.models.errors import PatchError
from circuitdsl.models.parts import Transformer
from tests.drawing import examples
from tests.engine import reference
from tests.engine.small_models import FEW, Case, make_case, only_named

CLOSE = 1e-4
NAMES = ("A", "B", "END")
drawn = settings(
    max_examples=examples(6, 60),
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
            if first.kind == "head":
                self.sums(first.layer, put)
            if first.kind == "mlp":
                self.features(first, self.now[first], put, lambda change, whole=first: self.now[whole].add_(change))
        self.stream(self.model.n_layers, put)
        self.logits = self.model.logits(self.read(LOGITS, "in")[-1])

    def sums(self, layer: int, put: Mapping[Node, Tensor] | None) -> None:
        """What the heads of a layer write together, and the stream behind them."""
        bias = self.model.blocks[layer].attn.o.bias
        out = sum(self.now[Node("head", layer, head)] for head in range(self.model.n_heads))
        for whole in (Node("attn", layer), Node("mid", layer)):
            value = self.seen(whole) if whole.kind == "mid" else out if bias is None else out + bias
            stage = whole.stage(self.model.parallel)
            self.features(whole, value, put, lambda change, at=stage: self.shifts.append((at, change)))

    def of_z(self, node: Node) -> Tensor:
        """What a feature of the values that the heads of a layer gather writes."""
        (tensors, _), attn = TENSORS[node.of], self.model.blocks[node.layer].attn
        norm, z = self.model.blocks[node.layer].attn_norm, []
        for head in range(self.model.n_heads):
            one = Node("head", node.layer, head)
            v = reference._own(attn, "v", head // attn.group, norm(self.read(one, "v")))
            z.append(reference._pattern(self.model, one, self.read) @ v)
        x = torch.cat(z, dim=1)
        scale = 1 if attn.post is None else reference._post(attn.post, x @ attn.o.weight.T)
        f = (x @ tensors["W_enc"] + tensors["b_enc"]).relu()
        if node.index != ERROR:
            return torch.outer(f[:, node.index], attn.o.weight @ tensors["W_dec"][node.index]) * scale
        gain = 1 if attn.post is None else attn.post.gain
        return (x - f @ tensors["W_dec"]) @ attn.o.weight.T * scale - tensors["b_dec"] @ attn.o.weight.T * gain

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
        held = {
            pos
            for site in self.experiment.sites
            if put is not None and site.node == whole
            for pos in self.at[site.position]
        }
        for node in mine if self.other is not None else ():  # those that something is sent to are computed anew
            new = self.term(node, value, node)
            places = {edge.position for edge in self.experiment.edges if edge.receiver.node == node}
            for pos in {pos for place in places for pos in self.at[place]} - held:
                change[pos] += new[pos] - self.terms[node][pos]
                self.terms[node][pos] = new[pos]
        for site in self.experiment.sites if put is not None else ():
            if site.node == whole:  # its parts are replaced with it
                for node in mine:
                    for pos in self.at[site.position]:
                        self.terms[node][pos] = put[node][pos]
            elif site.node in mine:
                for pos in self.at[site.position] - held:
                    change[pos] += put[site.node][pos] - self.terms[site.node][pos]
                    self.terms[site.node][pos] = put[site.node][pos]
        shift(change)

    def term(self, node: Node, value: Tensor, reader: Node | None = None) -> Tensor:
        """What a feature writes, given what all of its place writes; `reader` is the feature where it reads alone."""
        tensors, transcoder = TENSORS[node.of]
        if len(tensors["b_dec"]) != self.model.d_model or node.of.startswith("z"):
            return self.of_z(node)
        if node.kind == "mlp":
            block = self.model.blocks[node.layer]
            x = block.mlp_norm(self.read(reader or node.whole, "in"))
            x = x if transcoder else block.mlp(x) if reader else value
        else:
            x = self.read(reader, "in") if reader else value
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
    alone = [node for node in nodes if receives(node)]
    later = [node for node in (*plain, *alone * 2, LOGITS) if node.stage(model.parallel) > sender.stage(model.parallel)]
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
    ).filter(
        lambda one: (
            bool(one.edges or one.sites) and (one.ablate == "corrupt" or bool(one.sites)) and can_run(model, one)
        )
    )


def can_run(model: Transformer, experiment: Experiment) -> bool:
    """Whether its nodes do not share what they write."""
    try:
        check(model, experiment)
    except PatchError:
        return False
    return True


def with_features(model: Transformer, nodes: list[Node], seed: int = 0) -> Case:
    case = make_case(model, seed)
    return replace(case, runs=run(model, case.clean, case.corrupt, [*only_named(model), *nodes]))


def inner(model: Transformer, folder: Path) -> list[Node]:
    """Features of what the heads of a layer write together and of what they gather, and of the stream behind them."""
    places = [("a", 1, "hook_attn_out"), ("z", 0, "attn.hook_z"), ("b", 2, "hook_attn_out")]
    places += [] if model.parallel else [("m", 1, "hook_resid_mid")]
    found = []
    for i, (name, layer, hook) in enumerate(places):
        wide = model.n_heads * model.d_head if name == "z" else model.d_model
        found += all_of(name, written(folder / name, random(wide, 5, 7 + i), *2 * [f"blocks.{layer}.{hook}"]))
    return found


@pytest.mark.parametrize("where", [three, inner])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "gemma2"])
def test_patching_features_equals_brute_force(
    family: str, where: Callable, random_model: Callable, tmp_path: Path
) -> None:
    model = random_model(family)
    nodes = where(model, tmp_path)
    note(nodes)
    case = with_features(model, nodes)

    @drawn
    @given(st.lists(experiments(model, nodes), min_size=1, max_size=3))
    def equal(some: list[Experiment]) -> None:
        fast = effects(case.runs, some, case.positions, case.vocabulary)
        for experiment, logits in zip(some, fast, strict=True):
            assert (logits - slowly(case, nodes, experiment)).abs().max() < CLOSE, str(experiment)

    equal()


# --- identities -----------------------------------------------------------------------------------------


def of_relu(model: Transformer) -> Transformer:
    """The same with another activation in its MLPs, so that they can be written as transcoders."""
    return replace(model, blocks=tuple(replace(b, mlp=replace(b.mlp, act=torch.relu)) for b in model.blocks))  # type: ignore[arg-type]


def as_transcoder(model: Transformer, layer: int, folder: Path) -> Dictionary:
    """An MLP as a transcoder: its input weights encode, its output weights decode."""
    mlp = model.blocks[layer].mlp
    tensors = {"W_enc": mlp.up.weight.T, "b_enc": mlp.up.bias, "W_dec": mlp.down.weight.T, "b_dec": mlp.down.bias}
    hooks = f"blocks.{layer}.ln2.hook_normalized", f"blocks.{layer}.hook_mlp_out"
    return written(folder, tensors, *hooks, d_out=model.d_model)  # type: ignore[arg-type]


def logits(case: Case, *some: Experiment) -> Tensor:
    return effects(case.runs, some, case.positions, case.vocabulary)


def test_an_mlp_written_as_a_transcoder_has_its_neurons(random_model: Callable, tmp_path: Path) -> None:
    model = of_relu(random_model("gpt2"))
    found = as_transcoder(model, 1, tmp_path / "m1")
    pairs = [(Node("mlp", 1, index=i), feature("t", found, i)) for i in (0, 7)]
    error = feature("t", found, ERROR)
    case = with_features(model, [*(node for _, node in pairs), error])
    into, end = Input(Node("head", 3, 1), "v"), Input(LOGITS, "in")
    for neuron, node in pairs:
        for one in (
            [Experiment(frozenset([Edge(each, into, Position("A"))])) for each in (neuron, node)],
            [Experiment(frozenset([Edge(each, end, Position("END"))]), direction="denoise") for each in (neuron, node)],
            [Experiment(sites=frozenset([Site(each, EVERYWHERE)])) for each in (neuron, node)],
            [Experiment(sites=frozenset([Site(each, Position("B"))]), ablate="zero") for each in (neuron, node)],
        ):
            of_neuron, of_feature = logits(case, *one)
            torch.testing.assert_close(of_neuron, of_feature, atol=1e-4, rtol=1e-4)
        assert (logits(case, one[0])[0] - logits(case, Experiment())[0]).abs().max() > 1e-3
    assert case.runs.clean.value(error).abs().max() < 1e-4


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_all_features_and_the_error_are_the_whole(family: str, random_model: Callable, tmp_path: Path) -> None:
    model = random_model(family)
    nodes = three(model, tmp_path)
    case = with_features(model, nodes)
    for name in ("t", "s", "r"):
        parts = [node for node in nodes if node.of.startswith(name)]
        whole = parts[0].whole
        end = Input(LOGITS, "in")
        pairs = [
            (
                Experiment(frozenset(Edge(part, end, Position("END")) for part in parts)),
                Experiment(frozenset([Edge(whole, end, Position("END"))])),
            ),
            (
                Experiment(sites=frozenset(Site(part, EVERYWHERE) for part in parts)),
                Experiment(sites=frozenset([Site(whole, EVERYWHERE)])),
            ),
        ]
        for of_parts, of_whole in (logits(case, *pair) for pair in pairs):
            torch.testing.assert_close(of_parts, of_whole, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("family", FEW)
def test_all_features_within_a_layer_are_what_stands_there(family: str, random_model: Callable, tmp_path: Path) -> None:
    """Those of heads together are the heads; those of the stream behind them are the heads and the stream before."""
    model = random_model(family)
    case = with_features(model, nodes := inner(model, tmp_path))
    for parts in ([node for node in nodes if node.of.startswith(name)] for name in "azm"):
        if not parts:
            continue
        layer = parts[0].layer
        wholes = [Node("head", layer, head) for head in range(model.n_heads)]
        wholes += [Node("resid", layer)] if parts[0].kind == "mid" else []
        for place, direction in ((EVERYWHERE, "noise"), (Position("END"), "denoise")):  # no head reads END but there
            both = [
                Experiment(sites=frozenset(Site(n, place) for n in some), direction=direction)
                for some in (parts, wholes)
            ]
            of_parts, of_whole = logits(case, *both)
            torch.testing.assert_close(of_parts, of_whole, atol=1e-3, rtol=1e-3)
        for reader, port, place in ((LOGITS, "in", "END"), (Node("head", 2, 1), "v", "A")):
            into = Input(reader, port)
            both = [Experiment(frozenset(Edge(n, into, Position(place)) for n in some)) for some in (parts, wholes)]
            of_parts, of_whole = logits(case, *both)
            torch.testing.assert_close(of_parts, of_whole, atol=1e-3, rtol=1e-3)
            assert (of_parts - logits(case, Experiment())[0]).abs().max() > 1e-3
    same = replace(case, runs=run(model, case.clean, case.clean, [*only_named(model), *nodes]))
    for node in nodes[:7]:
        unchanged = logits(same, Experiment(sites=frozenset([Site(node, EVERYWHERE)])), Experiment())
        torch.testing.assert_close(*unchanged, atol=1e-4, rtol=1e-4)


def test_within_a_layer_what_cannot_be_exact_is_refused(random_model: Callable, tmp_path: Path) -> None:
    model, parallel = random_model("gpt2"), random_model("gpt_neox")
    nodes = inner(model, tmp_path)
    a, z = (next(node for node in nodes if node.of.startswith(name)) for name in "az")
    head, part = Node("head", 1, 0), Node("head", 0, 0, 2)
    end = Input(LOGITS, "in")
    for feature_, other in ((a, head), (z, part)):
        for one in (
            Experiment(frozenset(Edge(node, end, Position("END")) for node in (feature_, other))),
            Experiment(sites=frozenset(Site(node, EVERYWHERE) for node in (feature_, other))),
            Experiment(frozenset([Edge(other, end, Position("END"))]), frozenset([Site(feature_, EVERYWHERE)])),
        ):
            with pytest.raises(PatchError, match="cannot be patched together: parts of what the heads of layer"):
                logits(with_features(model, [a, z]), one)
    m = next(node for node in nodes if node.of.startswith("m"))
    with pytest.raises(DictionaryError, match="between heads and MLP, which stand side by side in"):
        logits(make_case(parallel), Experiment(sites=frozenset([Site(m, EVERYWHERE)])))
    with pytest.raises(PatchError, match=r"a\[0\] is a part of"):
        logits(with_features(model, [a]), Experiment(frozenset([Edge(part.whole, Input(a, "in"), EVERYWHERE)])))


@pytest.mark.parametrize("site", ["resid_pre", "attn_out", "z", "resid_mid"])
def test_how_a_feature_is_scaled_changes_nothing(site: str, random_model: Callable, tmp_path: Path) -> None:
    model = random_model("llama")
    wide = model.n_heads * model.d_head if site == "z" else model.d_model
    tensors, hook = random(wide, 5, 3), f"blocks.1.{'attn.' * (site == 'z')}hook_{site}"
    plain = written(tmp_path / "plain", tensors, hook, hook)
    scale = torch.tensor([2.0, 0.5, 3.0, 1.0, 0.1])
    scaled = {"W_enc": tensors["W_enc"] * scale, "b_enc": tensors["b_enc"] * scale, "b_dec": tensors["b_dec"]}
    other = written(tmp_path / "scaled", scaled | {"W_dec": tensors["W_dec"] / scale[:, None]}, hook, hook)
    for index in (0, 4, ERROR):
        both = [feature(name, found, index) for name, found in (("p", plain), ("s", other))]
        case = with_features(model, both)
        changed = [Intervention("test", "", (Scale((each,), 3.0),)) for each in both]
        found = [intervene(case.runs, each, case.positions).cache.end for each in changed]
        torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)
        assert (found[0] - case.runs.clean.end).abs().max() > 1e-3
        for one in (
            [Experiment(frozenset([Edge(each, Input(LOGITS, "in"), Position("END"))])) for each in both],
            [Experiment(sites=frozenset([Site(each, EVERYWHERE)])) for each in both],
        ):
            first, second = logits(case, *one)
            torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)


def test_features_go_by_their_means(random_model: Callable, tmp_path: Path) -> None:
    model = random_model("gpt2")
    nodes = three(model, tmp_path)
    case = with_features(model, nodes)
    stratum = torch.zeros(len(case.corrupt), dtype=torch.long)
    means = mean_terms(model, case.corrupt, stratum, 1, nodes)
    for node in nodes:
        mean = case.runs.corrupt.value(node).mean(0)
        torch.testing.assert_close(means.value(node)[0], mean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("reads", "writes", "message"),
    [
        ("blocks.1.hook_mlp_in", "blocks.1.hook_attn_out", "blocks.1.hook_resid_mid to blocks.1.hook_attn_out"),
        ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_pre", "where features cannot be patched yet"),
        ("blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out", "blocks.1.hook_resid_mid to blocks.1.hook_mlp_out"),
    ],
)
def test_places_where_features_cannot_be_patched(tmp_path: Path, reads: str, writes: str, message: str) -> None:
    found = written(tmp_path / "it", random(24, 5, 1), reads, writes)
    with pytest.raises(DictionaryError, match=message):
        feature("t", found, 0)


def test_a_feature_of_another_model_is_refused(random_model: Callable, tmp_path: Path) -> None:
    hook = "blocks.7.hook_resid_pre"
    high = feature("t", written(tmp_path / "high", random(24, 5, 1), hook, hook), 0)
    case = make_case(random_model("gpt2"))
    with pytest.raises(PatchError, match="residual streams 1 to 4, so there is no"):
        logits(case, Experiment(sites=frozenset([Site(high, EVERYWHERE)])))


def test_what_flows_past_a_feature_of_the_stream_is_refused(random_model: Callable, tmp_path: Path) -> None:
    model = random_model("gpt2")
    r = next(node for node in three(model, tmp_path) if node.of.startswith("r"))
    case = with_features(model, [r])
    into = Input(Node("head", 3, 0), "v")
    own, other = Edge(r, into, Position("A")), Edge(Node("head", 0, 0), into, Position("A"))
    logits(case, Experiment(frozenset([own]), via_mlps=True))
    with pytest.raises(PatchError, match=r"what the first writes is in resid1"):
        logits(case, Experiment(frozenset([own, other]), via_mlps=True))
    with pytest.raises(PatchError, match="past r"):
        beside = Edge(Node("mlp", 1), into, Position("A"))
        logits(case, Experiment(frozenset([beside]), frozenset([Site(r, Position("A"))]), via_mlps=True))


def test_via_mlps_a_feature_is_the_neuron_that_it_is(random_model: Callable, tmp_path: Path) -> None:
    model = of_relu(random_model("gpt2"))
    node = feature("t", as_transcoder(model, 0, tmp_path / "m0"), 7)
    case = with_features(model, [node])
    into = Input(Node("head", 3, 1), "v")
    pair = [
        Experiment(frozenset([Edge(each, into, Position("A")), *more]), via_mlps=True)
        for more in ((), (Edge(Node("head", 0, 1), into, Position("A")),))
        for each in (Node("mlp", 0, index=7), node)
    ]
    of_neuron, of_feature, with_neuron, with_feature = logits(case, *pair)
    torch.testing.assert_close(of_neuron, of_feature, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(with_neuron, with_feature, atol=1e-4, rtol=1e-4)
