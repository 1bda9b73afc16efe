"""Every family that has a row against plain hooks on the Hugging Face model itself: edges and knock-outs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from circuitdsl.circuit.nodes import EVERYWHERE, LOGITS, Edge, Input, Node, Position, Site
from circuitdsl.engine.experiment import Experiment
from circuitdsl.engine.path_patching import effects
from circuitdsl.models.parts import Transformer
from tests.drawing import examples
from tests.engine.small_models import Case, make_case
from tests.engine.test_post_norm import hooks, places, published
from tests.families import BRIDGED_ROWS, ROWS

END = Position("END")
HEAD, MLP = Node("head", 0, 1), Node("mlp", 1)


class Published:
    """A family's model as Hugging Face runs it, and the modules that its row names."""

    def __init__(self, view: Transformer) -> None:
        self.model, self.row, self.d_head = published(view), {**ROWS, **BRIDGED_ROWS}[view.family], view.d_head

    def at(self, layer: int, name: str) -> Any:
        return self.model.get_submodule(self.row.layers)[layer].get_submodule(name)

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        return self.model(tokens).logits[:, -1]

    def written(self, tokens: Tensor, node: Node) -> Tensor:
        """The term of a node of a run: a head's share of the sum, times the post-norm's gain and its run's scale."""
        seen: dict[str, Tensor] = {}
        out, mlp = self.at(node.layer, self.row.out), self.at(node.layer, self.row.mlp_out)
        with hooks(
            out.register_forward_pre_hook(lambda _, x: seen.update(z=x[0])),
            out.register_forward_hook(lambda _, x, y: seen.update(sum=y)),
            mlp.register_forward_hook(lambda _, x, y: seen.update(mlp=y)),
        ):
            self.logits(tokens)
        if node.kind == "mlp":
            return seen["mlp"].view(*tokens.shape, -1) * self.row.times
        own = slice(node.head * self.d_head, (node.head + 1) * self.d_head)
        share = seen["z"][..., own] @ out.weight[:, own].T * self.row.times
        if not self.row.post:
            return share
        post = self.at(node.layer, self.row.post)
        mean_square = seen["sum"].square().mean(-1, keepdim=True)
        return share * post.weight * torch.rsqrt(mean_square + post.variance_epsilon)

    @contextmanager
    def reading(self, receiver: Input, change: Tensor) -> Iterator[None]:
        """Hooks by which one input reads a changed residual stream."""
        row, node, read = self.row, receiver.node, dict[str, Tensor]()
        if node == LOGITS:
            final = self.model.get_submodule(row.final)
            with hooks(final.register_forward_pre_hook(lambda _, x: (x[0] + change,))):
                yield
            return
        into = self.at(node.layer, row.mlp if node.kind == "mlp" else row.q)
        name = row.mlp_norm if node.kind == "mlp" else row.norm
        norm = self.at(node.layer, name) if name else None

        def normed() -> Tensor:
            found = read["resid"] + change.view_as(read["resid"])
            return found if norm is None else norm.forward(found)

        def ask(_: Any, x: Any, out: Tensor) -> Tensor:
            found, out = into.forward(normed()), out.clone()
            if row.q_norm:
                found = self.at(node.layer, row.q_norm).forward(found)
            start = node.head * row.stride * self.d_head
            out[..., start : start + self.d_head] = found[..., start : start + self.d_head]
            return out

        kept = (norm or into).register_forward_pre_hook(lambda _, x: read.update(resid=x[0]))
        if node.kind == "mlp":
            changing = into.register_forward_pre_hook(lambda _, x: (normed(), *x[1:]))
        else:
            changing = self.at(node.layer, row.q_norm or row.q).register_forward_hook(ask)
        with hooks(kept, changing):
            yield


@pytest.fixture(params=[*ROWS, *list(BRIDGED_ROWS)[: examples(4, len(BRIDGED_ROWS))]])
def case(request: pytest.FixtureRequest, random_model: Callable[[str], Transformer]) -> Case:
    return make_case(random_model(request.param), seed=3)


def check(case: Case, experiment: Experiment, wanted: Tensor, plain: Tensor) -> None:
    (found,) = effects(case.runs, [experiment], case.positions, case.vocabulary)
    assert (found - wanted).abs().max() < 1e-4
    assert (wanted - plain).abs().max() > 1e-3


@torch.no_grad()
def test_edges_are_what_hooks_make_of_them(case: Case) -> None:
    model = Published(case.model)
    plain = model.logits(case.clean)
    queries, inputs, logits = Input(Node("head", 2, 2), "q"), Input(Node("mlp", 2), "in"), Input(LOGITS, "in")
    for sender in (HEAD, MLP):
        change = model.written(case.corrupt, sender) - model.written(case.clean, sender)
        for receiver in (queries, inputs, *([logits] if model.row.final else [])):
            with model.reading(receiver, change * places(case, END)):
                wanted = model.logits(case.clean)
            check(case, Experiment(frozenset([Edge(sender, receiver, END)])), wanted, plain)


@torch.no_grad()
@pytest.mark.parametrize("ablate", ["corrupt", "zero"])
def test_knock_outs_are_what_hooks_make_of_them(case: Case, ablate: str) -> None:
    model = Published(case.model)
    row, plain = model.row, model.logits(case.clean)
    for node, name in ((HEAD, row.post or row.out), (MLP, row.mlp_out)):
        term = model.written(case.corrupt, node) * (ablate == "corrupt") - model.written(case.clean, node)
        change = term / row.times
        with hooks(model.at(node.layer, name).register_forward_hook(lambda _, x, y, by=change: y + by.view_as(y))):
            wanted = model.logits(case.clean)
        experiment = Experiment(sites=frozenset([Site(node, EVERYWHERE)]), ablate=ablate)  # type: ignore[arg-type]
        check(case, experiment, wanted, plain)
