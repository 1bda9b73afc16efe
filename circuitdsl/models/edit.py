"""Interventions written into weights: a model directory in which heads and MLPs write otherwise.

Only what is a change of weights can be written: scaling heads, MLPs and singular components of heads, and silencing
them everywhere. `W_O` of a head becomes `(I + (x - 1) P) W_O`, with the `P` of `weights.component_factors`; the
saved model does what the intervention does.
"""

from __future__ import annotations

import shutil
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from circuitdsl.circuit.changes import Intervention, Replace, Scale, SetAttention
from circuitdsl.circuit.nodes import EVERYWHERE, Node, is_inside
from circuitdsl.errors import UserError
from circuitdsl.models.errors import BrokenWeights
from circuitdsl.models.families import FAMILIES
from circuitdsl.models.files import is_own, weight_files
from circuitdsl.models.load import locate
from circuitdsl.models.weights import AttentionWeights, component_factors, fold
from circuitdsl.ordinary import writing


class NotWeights(UserError):
    """An intervention that is no change of weights."""


#: files that are not the model's: code, caches, weights in other formats
USELESS = ("__*", ".*", *(f"*.{kind}" for kind in "py bin pt pth msgpack h5 onnx svg csv".split()))
#: a node (or a singular component), and what its writes are multiplied by
Change = tuple[Node, float]


def changes(intervention: Intervention) -> tuple[Change, ...]:
    """What an intervention multiplies, in order.

    Raises:
        NotWeights: it does something that weights cannot say.
    """
    name, found = intervention.name, list[Change]()
    if part := next((node for node in sorted(intervention.nodes) if node.along or is_inside(node)), None):
        of = "a direction" if part.along else "a neuron or a feature"
        what = f"intervention {name} changes {part}: {of} is no weight of its node"
        raise NotWeights(what, "edit takes scale, project out and replace of heads, components and MLPs")
    for verb in intervention.verbs:
        match verb:
            case Scale(nodes=nodes, factor=factor):
                found += [(node, factor) for node in nodes]
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
                    found.append((site.node, 0.0))
    return tuple(found)


def save_edited(
    model: str | Path, weights: AttentionWeights, intervention: Intervention, target: Path, revision: str | None = None
) -> None:
    """Write a model directory that differs from another by an intervention; all other files of it are copied.

    Raises:
        NotWeights: the intervention is no change of weights.
        UserError: the target exists or its folder does not, or the model has no directory of safetensors.
    """
    from safetensors.torch import load_file, save_file

    wanted = changes(intervention)
    if weights.family not in FAMILIES:
        raise NotWeights(
            f"which tensors of a {weights.family} model its heads and MLPs write with is not known by their names",
            "intervene without saving",
        )
    if weights.layers[0][1].post is not None:
        raise NotWeights(
            f"{weights.name} has a norm after the sum of all heads of a layer: no weights scale one head alone",
            "intervene without saving: the intervention scales what stands behind that norm",
        )
    if target.exists():
        raise UserError(f"{target} is there already", hint="choose another name, or remove it")
    source = locate(model, revision)
    files = weight_files(source)
    found: set[Node] = set()
    with writing(target):
        folder = tempfile.TemporaryDirectory(dir=target.resolve().parent, prefix=".circuitdsl-")
    with folder as name:
        made, useless = Path(name) / "model", shutil.ignore_patterns(*USELESS, *(file.name for file in files))

        def left_out(folder: str, names: list[str]) -> set[str]:
            return useless(folder, names) | {each for each in names if not is_own(Path(folder) / each)}

        made.mkdir()
        usual = made.stat().st_mode
        shutil.copytree(source, made, ignore=left_out, copy_function=shutil.copyfile, dirs_exist_ok=True)
        made.chmod(usual)  # `copytree` gives a folder the mode of its source
        for file in files:
            tensors, saved = load_file(str(file), backend="pread"), made / file.name
            found |= _edit(tensors, weights, wanted)
            saved.touch()
            usual = saved.stat().st_mode
            save_file(tensors, str(saved), metadata={"format": "pt"})
            saved.chmod(usual)  # `save_file` makes files that their owner alone can read
        if missing := sorted({node for node, _ in wanted} - found):
            raise BrokenWeights(f"the weights in {source} lack what {', '.join(map(str, missing))} writes with", None)
        made.replace(target)


def _edit(tensors: dict[str, Tensor], weights: AttentionWeights, wanted: tuple[Change, ...]) -> set[Node]:
    """Change tensors in place; returns the nodes whose tensors were among them."""
    found: set[Node] = set()
    of_heads, *of_mlps = FAMILIES[weights.family].writes
    for node, factor in wanted:
        endings = [of_heads] if node.kind == "head" else of_mlps
        for name in [n for n in tensors for each in endings if fnmatchcase(f".{n}", f"*.{each.format(node.layer)}")]:
            if node.kind == "head":
                tensors[name] = _head_scaled(tensors[name], weights, node, factor)
            else:
                tensors[name] = tensors[name] * factor
            found.add(node)
    return found


def _head_scaled(stored: Tensor, weights: AttentionWeights, node: Node, factor: float) -> Tensor:
    """W_O of a layer with the rows of one head changed, as it is stored: GPT-2 stores its matrices `[in, out]`."""
    norm, attn = weights.layers[node.layer]
    matrix = (stored if weights.family == "gpt2" else stored.T).clone()
    rows = slice(node.head * attn.d_head, (node.head + 1) * attn.d_head)
    own = part = matrix[rows].double()
    if node.is_part:
        folded = fold(norm, attn)
        reads, writes = component_factors(folded.W_V[node.head], folded.W_O[node.head])
        part = torch.outer(reads[node.index], writes[node.index]) @ own
    matrix[rows] = (own + (factor - 1) * part).to(matrix.dtype)
    return (matrix if weights.family == "gpt2" else matrix.T).contiguous()
