"""Load a model through TransformerLens and see it as terms of one residual stream.

A model is a directory in Hugging Face's layout, a name on the Hugging Face hub, or `pocket`, the directory that
ships with this package. A directory never asks the network. Weights are read from safetensors only, and no code
that came with a model is run.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuitdsl.circuit.shapes import MOST_LAYERS, too_deep
from circuitdsl.models.errors import BrokenWeights, ModelUnavailable, UnsupportedModel, first_line
from circuitdsl.models.tokenizers import quiet_and_offline, read_tokenizer

if TYPE_CHECKING:
    import torch

    from circuitdsl.models.parts import Rotary, Transformer

POCKET = Path(__file__).parent / "pocket"
DTYPES = ("float32", "bfloat16", "float16")
#: how far our own logits may be from the model's own, relative to the largest of them
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
WANTED = ["*.json", "*.safetensors", "merges.txt", "vocab.txt", "*.model"]
UNWANTED = ["*/*", "consolidated*", "training_args*"]


@dataclass(frozen=True, slots=True)
class Available:
    """A model that can be loaded without a download."""

    name: str
    path: Path
    where: str
    size: int

    def __str__(self) -> str:
        return self.name


def load_model(
    name_or_dir: str | Path, device: str = "auto", dtype: str = "float32", revision: str | None = None
) -> Transformer:
    """Load a model and check, on random tokens, that its residual stream is the sum of its terms.

    Args:
        name_or_dir: `pocket`, a directory, or a name on the Hugging Face hub.
        device: `auto` (a CUDA device where there is one), `cpu`, or `cuda`.
        dtype: `float32`, `bfloat16` or `float16`, or what torch calls so. TF32 is off for all of them.
        revision: a branch, tag or commit on the hub.

    Raises:
        ModelUnavailable: the weights are not at hand or cannot be read.
        UnsupportedModel: the family is not known, or the sum does not give the model's own logits.
        BrokenWeights: weights are missing, or not finite.
    """
    directory = locate(name_or_dir, revision)
    place = device_named(device)
    number_format = str(dtype).removeprefix("torch.")
    bridge = boot(directory, place, number_format)
    return _view(str(name_or_dir), directory, bridge, number_format)


def load_tokenizer(name_or_dir: str | Path, revision: str | None = None) -> Any:
    """The Hugging Face tokenizer of a model, without its weights.

    Raises:
        ModelUnavailable: there is none.
    """
    directory = locate(name_or_dir, revision, weights=False)
    tokenizer = read_tokenizer(directory)
    if tokenizer is None:
        raise ModelUnavailable(f"{name_or_dir} has no tokenizer (no tokenizer.json, no vocab.json and merges.txt)")
    return tokenizer


def vocabulary_size(name_or_dir: str | Path, revision: str | None = None) -> int | None:
    """How many tokens a model has, as its configuration says; None where that does not say."""
    found = _read_json(locate(name_or_dir, revision, weights=False) / "config.json").get("vocab_size")
    return found if isinstance(found, int) else None


def weights_sha256(name_or_dir: str | Path, revision: str | None = None) -> str:
    """SHA-256 of the weights: of `model.safetensors`, or of the list of its shards' own digests."""
    digests = {file.name: _file_sha256(file) for file in weight_files(locate(name_or_dir, revision))}
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256("".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()).hexdigest()


def available_models() -> list[Available]:
    """What can be loaded here without a download: `pocket`, and what the hub's cache holds."""
    found = [Available("pocket", POCKET, "with circuitdsl", _size(POCKET))] if _has_weights(POCKET) else []
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir().repos
    except CacheNotFound:
        return found
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        paths = [r.snapshot_path for r in repo.revisions if _has_weights(Path(r.snapshot_path))]
        if repo.repo_type == "model" and paths:
            found.append(Available(repo.repo_id, Path(paths[0]), "in the hub's cache", _size(Path(paths[0]))))
    return found


# --- where the files are ----------------------------------------------------------------------------


def locate(name_or_dir: str | Path, revision: str | None = None, weights: bool = True) -> Path:
    """The directory that holds a model's files; downloads them from the hub where that is needed and possible.

    Raises:
        ModelUnavailable: with what was looked for, where, and what to do.
    """
    if not isinstance(name_or_dir, str | Path):
        raise ModelUnavailable(f"{name_or_dir!r} is neither a model's name nor its directory", MODEL_HINT)
    if str(name_or_dir) == "pocket":
        if weights and not _has_weights(POCKET):
            raise ModelUnavailable(f"the pocket model is not in this installation (looked in {POCKET})", MODEL_HINT)
        return POCKET
    path = Path(name_or_dir).expanduser()
    if path.exists() or str(name_or_dir).startswith((".", "/", "~")):
        _check_directory(path, weights)
        return path
    return _from_hub(str(name_or_dir), revision, weights)


MODEL_FILES = "a directory that holds config.json, model.safetensors and tokenizer.json"
MODEL_HINT = f"point --model at {MODEL_FILES}"


def _check_directory(path: Path, weights: bool) -> None:
    if not path.exists():
        raise ModelUnavailable(f"there is no model directory {path}", MODEL_HINT)
    if not path.is_dir():
        raise ModelUnavailable(f"{path} is a file; a model is a directory", MODEL_HINT)
    try:
        names = {file.name for file in path.iterdir()}
    except OSError as error:
        raise ModelUnavailable(f"the model directory {path} cannot be read: {error.strerror}") from None
    if not weights:
        return
    check_configuration(path)
    if (path / "model.safetensors.index.json").is_file():
        weight_files(path)
    if not _has_weights(path):
        other = next((name for name in sorted(names) if name.endswith((".bin", ".pt", ".pth", ".h5"))), None)
        if other is not None:
            raise ModelUnavailable(
                f"{path} has its weights in {other}, which can hold code; only safetensors are read",
                "convert them with transformers' save_pretrained, which writes model.safetensors",
            )
        raise ModelUnavailable(f"{path} has no model.safetensors", MODEL_HINT)


def check_configuration(directory: Path) -> None:
    """Raise `ModelUnavailable` where there is no configuration, or one of more layers than any model has.

    A model is made before its weights are read, and a slip of the pen here would take all the memory there is.
    """
    config = directory / "config.json"
    if not config.is_file():
        message = f"{directory} has no config.json, so it is not a model in Hugging Face's layout"
        raise ModelUnavailable(message, MODEL_HINT)
    given = _read_json(config)
    for key in ("num_hidden_layers", "n_layer"):
        if isinstance(given.get(key), int) and given[key] > MOST_LAYERS:
            raise ModelUnavailable(too_deep(config, given[key]))


def _from_hub(name: str, revision: str | None, weights: bool) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    def snapshot(local: bool) -> Path:
        patterns = WANTED if weights else [p for p in WANTED if p != "*.safetensors"]
        return Path(
            snapshot_download(
                name, revision=revision, local_files_only=local, allow_patterns=patterns, ignore_patterns=UNWANTED
            )
        )

    try:
        cached = snapshot(local=True)
        if _has_weights(cached) or not weights:
            return cached
    except HFValidationError:
        message = f"{name!r} is neither a directory nor a name on the Hugging Face hub"
        raise ModelUnavailable(message, MODEL_HINT) from None
    except LocalEntryNotFoundError:
        pass
    looked = f"the weights of {name} are not at hand: they are not in the hub's cache ({constants.HF_HUB_CACHE})"
    if constants.HF_HUB_OFFLINE:
        raise ModelUnavailable(f"{looked}, and HF_HUB_OFFLINE is set", MODEL_HINT)
    try:
        HfApi().model_info(name, revision=revision, timeout=10)  # snapshot_download would retry for a minute
        path = snapshot(local=False)
    except RepositoryNotFoundError:
        raise ModelUnavailable(f"the Hugging Face hub has no model {name} that is open to you", MODEL_HINT) from None
    except Exception as error:  # the hub's client lets the errors of its HTTP library through
        raise ModelUnavailable(f"{looked}, and the hub cannot be reached ({first_line(error)})", MODEL_HINT) from None
    _check_directory(path, weights)
    return path


def _has_weights(path: Path) -> bool:
    try:
        return (path / "config.json").is_file() and bool(weight_files(path))
    except (OSError, ModelUnavailable):
        return False


def weight_files(path: Path) -> list[Path]:
    """The safetensors of a model's directory: one file, or the shards that its index names."""
    index = path / "model.safetensors.index.json"
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    if not index.is_file():
        return []
    shards = _read_json(index).get("weight_map", {})
    if not isinstance(shards, dict) or not all(isinstance(name, str) and name for name in shards.values()):
        raise ModelUnavailable(f"{index} does not say which file holds each tensor")
    return sorted({path / Path(name).name for name in shards.values()})


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in weight_files(path) if file.exists())


def _file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{file} cannot be read: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise ModelUnavailable(f"{file} is not a JSON object")
    return content


# --- reading them -----------------------------------------------------------------------------------


def boot(directory: Path, device: torch.device, dtype: str = "float32") -> Any:
    """A `TransformerBridge` of TransformerLens around the model in a directory, with its weights as published.

    Raises:
        ModelUnavailable: a file cannot be read.
        BrokenWeights: the files lack a tensor of the model.
        UnsupportedModel: TransformerLens does not know the architecture.
    """
    import torch

    if dtype not in DTYPES:
        raise ModelUnavailable(f"dtype {dtype} is not known; use one of {', '.join(DTYPES)}")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    with quiet_and_offline():
        from transformer_lens.model_bridge import TransformerBridge

        model = _pretrained(directory, getattr(torch, dtype)).to(device).eval()
        try:
            return TransformerBridge.boot_transformers(
                str(directory), hf_model=model, device=device, dtype=getattr(torch, dtype), tokenizer=_stand_in()
            )
        except ValueError as error:
            kind = model.config.model_type
            raise UnsupportedModel(f"TransformerLens cannot take {kind} models: {first_line(error)}") from None


def _pretrained(directory: Path, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(directory),
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            attn_implementation="eager",
            ignore_mismatched_sizes=True,  # which is an error below, in our words
        )
    except (OSError, SafetensorError) as error:
        raise ModelUnavailable(f"the model in {directory} cannot be read: {first_line(error)}") from None
    except Exception as error:  # transformers lets through whatever a wrong configuration runs into
        raise UnsupportedModel(f"transformers cannot load the model in {directory}: {first_line(error)}") from None
    if info["mismatched_keys"]:
        key, has, wants = min(info["mismatched_keys"])
        raise BrokenWeights(
            f"the weights in {directory} do not fit its config.json: {key} is {_size_of(has)}, not {_size_of(wants)}"
        )
    missing = sorted(info["missing_keys"])
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BrokenWeights(f"the weights in {directory} lack {missing[0]}{more}; the model would be part random")
    refuse_more_layers(directory, sorted(info["unexpected_keys"]), model.config)
    return model


def _size_of(shape: torch.Size) -> str:
    return " × ".join(map(str, shape))


def refuse_more_layers(directory: Path, unexpected: list[str], config: Any) -> None:
    """Raise `BrokenWeights` where the files hold layers that the configuration leaves out."""
    layers = int(config.num_hidden_layers)
    for key in unexpected:
        if any(part.isdigit() and int(part) >= layers for part in key.split(".")):
            raise BrokenWeights(
                f"config.json in {directory} gives the model {layers} layers, and the weights have more: {key}"
            )


def configuration(directory: Path) -> Any:
    """A model's configuration, with the defaults of its family.

    Raises:
        UnsupportedModel: transformers does not know it.
    """
    with quiet_and_offline():
        from transformers import AutoConfig

        try:
            return AutoConfig.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # transformers lets through whatever a wrong configuration runs into
            problem = f"transformers cannot read the configuration in {directory}: {first_line(error)}"
            raise UnsupportedModel(problem) from None


def _view(name: str, directory: Path, bridge: Any, dtype: str) -> Transformer:
    from circuitdsl.models.families import read_parts

    model = bridge.original_model
    weights = {
        key.replace("._original_component", ""): value.detach()
        for key, value in model.named_parameters(remove_duplicate=False)
    }
    for key, value in weights.items():
        if not bool(value.isfinite().all()):
            raise BrokenWeights(f"the tensor {key} in {directory} holds NaN or infinity")
    view = read_parts(name, model.config, weights, _rotary(model), weights_sha256(directory), read_tokenizer(directory))
    _check_sum(view, bridge, dtype)
    return view


def _check_sum(view: Transformer, bridge: Any, dtype: str) -> None:
    """Refuse a model whose own logits are not what the terms of its residual stream add up to."""
    import torch

    generator = torch.Generator().manual_seed(0)
    shape = (2, min(12, view.n_ctx))
    tokens = torch.randint(view.n_vocab, shape, generator=generator).to(view.device)
    with torch.inference_mode():
        theirs = bridge.original_model(tokens).logits.float()
        ours = forward(view, tokens).float()
    error = float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-6))
    if not error <= TOLERANCE[dtype]:
        raise UnsupportedModel(
            f"the residual stream of {view.name} ({view.family}) is not the sum of the terms that its heads and MLPs "
            f"write: logits computed from the terms are off by {error:.1e} of the largest, so patching would be wrong"
        )


def forward(model: Transformer, tokens: torch.Tensor) -> torch.Tensor:
    """Logits `[n, T, vocab]` of tokens `[n, T]`, computed from the model's terms alone."""
    from circuitdsl.models.parts import attend

    resid = model.embed(tokens)
    for block, turns in zip(model.blocks, model.turns(tokens.shape[1]), strict=True):
        x = block.attn_norm(resid)
        q, k, v = (block.attn.project(port, x, turns).transpose(1, 2) for port in ("q", "k", "v"))
        z, _ = block.attn.written(attend(block.attn, q, k, v))
        mid = resid + block.attn.write(z)  # the sum of the heads' terms
        resid = mid + block.mlp(block.mlp_norm(resid if model.parallel else mid))
    return model.logits(resid)


def _rotary(model: Any) -> dict[str, Rotary]:
    """Rotary frequencies by kind of layer, under "" where there is one kind."""
    from circuitdsl.models.parts import Rotary

    found = {}
    for module in model.modules():
        for name, frequencies in module.named_buffers(recurse=False):
            if name.endswith("inv_freq") and not name.endswith("original_inv_freq"):
                kind = name.removesuffix("inv_freq")
                scaling = getattr(module, f"{kind}attention_scaling", 1.0)
                found[kind.rstrip("_")] = Rotary(frequencies, float(scaling))
    return found


def device_named(device: str | torch.device) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device; raises `ModelUnavailable` where it is not there."""
    import torch

    name = str(device)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"(cpu|cuda)(:[0-9]{1,3})?", name, re.ASCII):
        raise ModelUnavailable(f"device {name} is not known; use auto, cpu or cuda")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelUnavailable("there is no CUDA device here", "use --device cpu")
    return torch.device(name)


def _stand_in() -> Any:
    """A tokenizer for the bridge, which alters the one it is given; ours stays as published."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>")), unk_token="<unk>"
    )
