"""Features of cross-layer transcoders equal hooks on the models of transformers, and per-layer transcoders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from circuitdsl.circuit.crossing import writings
from circuitdsl.circuit.features import feature
from circuitdsl.circuit.nodes import EMBED, EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.dictionaries import read_dictionaries
from circuitdsl.dictionaries.record import Dictionary
from circuitdsl.engine.experiment import Experiment
from circuitdsl.engine.path_patching import effects
from circuitdsl.engine.runs import mean_terms, run
from circuitdsl.models.parts import Transformer
from tests.drawing import examples
from tests.engine.brute_hooks import Hooked
from tests.engine.small_models import make_case, only_named
from tests.engine.test_feature_hooks import rows
from tests.engine.test_features import can_run, drawn, random

CLOSE = 2e-4
few = settings(drawn, max_examples=examples(6, 60))
END = Position("END")
PLACES = st.sampled_from((EVERYWHERE, Position("A"), Position("B"), END))


def crossing(folder: Path, tensors: list[Mapping[str, Tensor]], reads: str) -> tuple[Dictionary, ...]:
    """A cross-layer transcoder in files, read again: of each layer `W_enc` [m, d], `W_dec` [m, layers above, d]."""
    folder.mkdir(parents=True)
    for layer, own in enumerate(tensors):
        decoder = {f"W_dec_{layer}": own["W_dec"].contiguous()}
        save_file(decoder, folder / f"W_dec_{layer}.safetensors")
        rest = {f"{key}_{layer}": value.contiguous() for key, value in own.items() if key != "W_dec"}
        save_file(rest, folder / f"W_enc_{layer}.safetensors")
    (folder / "config.yaml").write_text(f"feature_input_hook: {reads}\nfeature_output_hook: hook_mlp_out\n")
    return read_dictionaries(str(folder))


def drawn_tensors(model: Transformer) -> list[Mapping[str, Tensor]]:
    layers, found = model.n_layers, []
    for layer in range(layers):
        own = random(model.d_model, 4, layer)
        draw = torch.Generator().manual_seed(20 + layer)
        rows = torch.randn(4, layers - layer, model.d_model, generator=draw) / 3
        found.append({**own, "W_enc": own["W_enc"].T, "W_dec": rows})
    return found


class Crossed(Hooked):
    """Hooks under which features of a cross-layer transcoder are replaced, or sent.

    Attributes:
        tensors: by the layer that is encoded; `reads_stream`: before the MLP's norm.
        put: activations [layer][T, m] that are put in at `knocked`: (layer, feature, token).
        sent: (layer, feature, place, token): what is read there has the activations of `put_sent`.
    """

    tensors: list[Mapping[str, Tensor]]
    reads_stream = True
    parallel = False
    put: dict[int, Tensor]
    put_sent: dict[int, Tensor]
    knocked: set[tuple[int, int, int]]
    sent: set[tuple[int, int, tuple[Node, str], int]]

    def start(self, put: dict, put_sent: dict, knocked: set, sent: set) -> None:
        self.put, self.put_sent, self.knocked, self.sent = put, put_sent, knocked, sent
        self.f: dict[int, Tensor] = {}
        self.value: dict[int, Tensor] = {}

    def patched(self, node: Node, port: str) -> bool:
        return super().patched(node, port) or any(place == (node, port) for _, _, place, _ in self.sent)

    def read(self, node: Node, port: str, resid: Tensor) -> Tensor:
        resid = super().read(node, port, resid).clone()
        for layer, index, place, token in self.sent:
            if place == (node, port):
                for step, row in enumerate(self.tensors[layer]["W_dec"][index]):
                    if Node("mlp", layer + step).stage(self.parallel) < node.stage(self.parallel):
                        change = self.put_sent[layer][token, index] - self.value[layer][token, index]
                        resid[token] += change * row
        return resid

    def _mlp(self, layer: int, own: Mapping[str, Any], out: Tensor) -> Tensor:
        whole, mid, out = Node("mlp", layer), self.mid, out.clone()
        if self.patched(whole, "in"):
            mid = self.read(whole, "in", mid)
            out = own["mlp"].forward(own["mlp_norm"].forward(mid[None]))
            out = own["mlp_post"].forward(out) if "mlp_post" in own else out
        tensors, x = self.tensors[layer], mid if self.reads_stream else own["mlp_norm"].forward(mid[None])[0]
        self.f[layer] = (x @ tensors["W_enc"].T + tensors["b_enc"]).relu()
        self.value[layer] = self.f[layer].clone()
        for of, index, token in self.knocked:
            if of <= layer:
                change = self.put[of][token, index] - self.f[of][token, index]
                out[0, token] += change * self.tensors[of]["W_dec"][index, layer - of]
                self.value[of][token, index] = self.put[of][token, index]
        self.terms[whole] = out[0]
        return out


def slowly(hooked: Crossed, experiment: Experiment, clean: Tensor, corrupt: Tensor, at: Mapping, mean: dict) -> Tensor:
    """Logits at END of a prompt's patched run."""
    if experiment.direction == "denoise":
        clean, corrupt = corrupt, clean
    hooked.start({}, {}, set(), set())
    hooked.run(corrupt)
    other, terms = dict(hooked.f), dict(hooked.terms)
    put = {"corrupt": other, "zero": {n: torch.zeros_like(f) for n, f in other.items()}, "mean": mean}
    knocked = {(s.node.reads, s.node.index, t) for s in experiment.sites for t in at[s.position]}
    sent, plain = set(), set()
    for edge in experiment.edges:
        place = edge.receiver.node, edge.receiver.port
        for token in at[edge.position]:
            if edge.sender.crosses:
                sent.add((edge.sender.reads, edge.sender.index, place, token))
            else:
                plain.add((edge.sender, place, token))
    hooked.start(put[experiment.ablate], put[experiment.sent], knocked, sent)
    return hooked.run(clean, plain, terms)


def experiments(model: Transformer, nodes: list[Node]) -> st.SearchStrategy[Experiment]:
    plain = [EMBED, *(Node("head", layer, 0) for layer in range(model.n_layers))]
    heads = [Input(Node("head", layer, 1), "q") for layer in range(1, model.n_layers)]
    mlps = [Input(Node("mlp", layer), "in") for layer in range(model.n_layers)]

    @st.composite
    def edge(draw: st.DrawFn) -> Edge:
        sender = draw(st.sampled_from([*nodes, *nodes, *plain]))
        stage = sender.stage(model.parallel)
        receiver = draw(
            st.sampled_from(
                [each for each in (*heads, *mlps, Input(LOGITS, "in")) if each.node.stage(model.parallel) > stage]
            )
        )
        return Edge(sender, receiver, END if receiver.node == LOGITS else draw(PLACES))

    return st.builds(
        Experiment,
        edges=st.frozensets(edge(), max_size=4),
        sites=st.frozensets(st.builds(Site, st.sampled_from(nodes), PLACES), max_size=3),
        ablate=st.sampled_from(("corrupt", "zero", "mean")),
        sent=st.sampled_from(("corrupt", "zero", "mean")),
        direction=st.sampled_from(("noise", "denoise")),
    )


@pytest.mark.parametrize(
    ("family", "reads"),
    [
        ("gpt2", "hook_resid_mid"),
        ("gpt2", "ln2.hook_normalized"),
        ("llama", "hook_resid_mid"),
        ("gpt_neox", "hook_resid_mid"),
        ("gemma2", "ln2.hook_normalized"),
    ],
)
def test_crossing_features_under_hooks(family: str, reads: str, random_model: Callable, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = random_model(family)
    tensors = drawn_tensors(model)
    found = crossing(tmp_path / "clt", tensors, reads)
    nodes = [feature(f"c{layer}", each, index) for layer, each in enumerate(found) for index in (0, 1)]
    case = make_case(model, 0)
    parts = [part for node in nodes for part in writings(node)]
    runs = run(model, case.clean, case.corrupt, [*only_named(model), *parts])
    means = mean_terms(model, case.corrupt, torch.zeros(len(case.corrupt), dtype=torch.long), 1, parts)
    runs = runs.with_means(means, torch.zeros(runs.n, dtype=torch.long))
    slow = Crossed(AutoModelForCausalLM.from_pretrained(model.name, attn_implementation="eager").eval(), family, {})
    slow.tensors, slow.reads_stream, slow.parallel = tensors, reads == "hook_resid_mid", model.parallel
    active = []
    for tokens in case.corrupt:
        slow.start({}, {}, set(), set())
        slow.run(tokens)
        active.append(slow.f)
    mean = {layer: torch.stack([f[layer] for f in active]).mean(0) for layer in range(model.n_layers)}

    @few
    @given(st.lists(experiments(model, nodes), min_size=1, max_size=3))
    def equal(some: list[Experiment]) -> None:
        for one in some:
            uses_mean = (one.sites and one.ablate == "mean") or (one.edges and one.sent == "mean")
            assume((one.edges or one.sites) and can_run(model, one))
            assume(one.sites or one.ablate == "corrupt")
            assume(one.direction == "noise" or not uses_mean)
            assume(one.sent == "corrupt" or all(edge.sender.crosses for edge in one.edges))
        fast = effects(runs, some, case.positions, case.vocabulary)
        for one, own in zip(some, fast, strict=True):
            wanted = rows(case, lambda clean, corrupt, at, one=one: slowly(slow, one, clean, corrupt, at, mean))
            for row, line in zip(own, wanted, strict=True):
                assert (row - line).abs().max() < CLOSE, str(one)

    equal()
