"""Interventions written into weights: a model directory in which heads and MLPs write otherwise.

Only what is a change of weights can be written: scaling heads, MLPs and singular components of heads, and silencing
them everywhere. `W_O` of a head becomes `(I + (x - 1) P) W_O`, with the `P` of `weights.component_map`; the
saved model does what the intervention does.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from circuitdsl.circuit.changes import Intervention, Replace, Scale, SetAttention
from circuitdsl.circuit.nodes import EVERYWHERE, Node
from circuitdsl.errors import UserError
from circuitdsl.models.errors import BrokenWeights, UnsupportedModel
from circuitdsl.models.files import weight_files
from circuitdsl.models.load import locate
from circuitdsl.models.weights import AttentionWeights, component_map, fold

#: the endings of the tensors that write: (heads' W_O, MLPs' last matrix), `{}` being the layer
_TENSORS = {
    "gpt2": ("h.{}.attn.c_proj.weight", "h.{}.mlp.c_proj"),
    "gpt_neox": ("layers.{}.attention.dense.weight", "layers.{}.mlp.dense_4h_to_h"),
    "llama": ("layers.{}.self_attn.o_proj.weight", "layers.{}.mlp.down_proj"),
}
_LLAMAS = ("llama", "mistral", "qwen2", "qwen3", "gemma")
_FAMILIES = {"gpt2": "gpt2", "gpt_neox": "gpt_neox"} | dict.fromkeys(_LLAMAS, "llama")


class NotWeights(UserError):
    """An intervention that is no change of weights."""


@dataclass(frozen=True, slots=True)
class Change:
    """A node (or a singular component) whose writes are multiplied."""

    node: Node
    factor: float


def changes(intervention: Intervention) -> tuple[Change, ...]:
    """What an intervention does to weights, in order.

    Raises:
        NotWeights: it does something that weights cannot say.
    """
    return tuple(change for verb in intervention.verbs for change in _changes(intervention.name, verb))


def _changes(name: str, verb: SetAttention | Scale | Replace) -> Iterator[Change]:
    match verb:
        case Scale(nodes=nodes, factor=factor):
            yield from (Change(node, factor) for node in nodes)
        case SetAttention():
            raise NotWeights(
                f"intervention {name} sets attention, which no weights do",
                "edit takes scale, project out, replace with zero",
            )
        case Replace(sites=sites, ablate=ablate):
            if ablate != "zero":
                raise NotWeights(
                    f"intervention {name} replaces with {ablate} terms, which depend on the prompt",
                    "replace with zero, or scale",
                )
            for site in sites:
                if site.position != EVERYWHERE:
                    where = f"{site.node} at {site.position} alone"
                    raise NotWeights(
                        f"intervention {name} silences {where}; weights act at all positions",
                        f"write: scale {site.node} by 0",
                    )
                yield Change(site.node, 0.0)


def save_edited(model: str | Path, weights: AttentionWeights, intervention: Intervention, target: Path) -> None:
    """Write a model directory that differs from another by an intervention; all other files are copied.

    Raises:
        NotWeights: the intervention is no change of weights.
        UserError: the target exists, or the model has no directory of safetensors.
    """
    from safetensors.torch import load_file, save_file

    wanted = changes(intervention)
    if weights.layers[0][1].post is not None:
        raise NotWeights(
            f"{weights.name} has a norm after the sum of all heads of a layer: no weights scale one head alone",
            "intervene without saving: the intervention scales what stands behind that norm",
        )
    family = _FAMILIES.get(weights.family)
    if family is None:
        raise UnsupportedModel(f"weights of {weights.family} models cannot be edited", f"known: {', '.join(_FAMILIES)}")
    if target.exists():
        raise UserError(f"{target} is there already", hint="choose another name, or remove it")
    source = locate(model)
    files = weight_files(source)
    found: set[Node] = set()
    with tempfile.TemporaryDirectory(dir=target.resolve().parent, prefix=f".{target.name}.") as name:
        made = Path(name) / "model"
        names = {file.name for file in files}
        shutil.copytree(
            source, made, ignore=lambda _, inside: [each for each in inside if each in names or _useless(each)]
        )
        for file in files:
            tensors = load_file(str(file))
            found |= _edit(tensors, weights, family, wanted)
            save_file(tensors, str(made / file.name), metadata={"format": "pt"})
        if missing := sorted({change.node for change in wanted} - found):
            raise BrokenWeights(f"the weights in {source} lack what {', '.join(map(str, missing))} writes with", None)
        made.replace(target)


def _useless(name: str) -> bool:
    """Files that are not the model's: code, caches, weights in other formats."""
    return name.endswith((".py", ".bin", ".pt", ".pth", ".msgpack", ".h5", ".onnx", ".svg", ".csv")) or name.startswith(
        ("__", ".")
    )


def _edit(tensors: dict[str, Tensor], weights: AttentionWeights, family: str, wanted: tuple[Change, ...]) -> set[Node]:
    """Change tensors in place; returns the nodes whose tensors were among them."""
    found: set[Node] = set()
    for change in wanted:
        of_heads, of_mlps = _TENSORS[family]
        if change.node.kind == "head":
            ending = of_heads.format(change.node.layer)
            for name in [name for name in tensors if _is(name, ending)]:
                tensors[name] = _head_scaled(tensors[name], weights, change, family == "gpt2")
                found.add(change.node)
        else:
            ending = of_mlps.format(change.node.layer)
            for name in [name for name in tensors if _is(name, f"{ending}.weight") or _is(name, f"{ending}.bias")]:
                tensors[name] = tensors[name] * change.factor
                found.add(change.node)
    return found


def _is(name: str, ending: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def _head_scaled(stored: Tensor, weights: AttentionWeights, change: Change, inputs_first: bool) -> Tensor:
    """W_O of a layer with the rows of one head changed, as it is stored."""
    node, (norm, attn) = change.node, weights.layers[change.node.layer]
    rows = slice(node.head * attn.d_head, (node.head + 1) * attn.d_head)
    matrix = (stored if inputs_first else stored.T).clone()
    own = matrix[rows].double()
    if node.index < 0:
        own = own * change.factor
    else:
        folded = fold(norm, attn)
        own = own + (change.factor - 1) * (
            component_map(folded.W_V[node.head], folded.W_O[node.head], node.index) @ own
        )
    matrix[rows] = own.to(matrix.dtype)
    return (matrix if inputs_first else matrix.T).contiguous()
