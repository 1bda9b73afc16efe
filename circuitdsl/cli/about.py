"""What a bug report says of the machine: `circuitdsl --version --verbose`. No library that computes is imported."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from circuitdsl.errors import UserError
from circuitdsl.installed import version
from circuitdsl.version import __version__

#: packages that decide what is computed
LIBRARIES = (
    "torch",
    "transformers",
    "transformer-lens",
    "tokenizers",
    "safetensors",
    "huggingface-hub",
    "numpy",
    "scipy",
)
#: what is said of instruction sets: those by which libraries choose their code
INSTRUCTIONS = re.compile(r"(sse4_2|avx|avx2|avx512\w*|avx_vnni|amx_\w+|fma|f16c|asimd|sve2?|bf16|i8mm)\b")
MISSING = "not installed"


def about() -> Iterator[str]:
    """Lines on this package, Python, the libraries, the machine, the device, the cache and the extras."""
    yield f"circuitdsl {__version__}"
    yield _line("python", f"{platform.python_version()} ({platform.python_implementation()})")
    for name in LIBRARIES:
        yield _line(name, _installed(name))
    yield _line("system", platform.platform())
    yield _line("processor", *_processor())
    yield _line("device", _device())
    yield _line("cache", _cache())
    for extra, packages in extras().items():
        missing = [name for name in packages if _installed(name) == MISSING]
        if missing:
            yield _line(f"[{extra}]", f"{', '.join(missing)} {MISSING}: pip install 'circuitdsl[{extra}]'")
        else:
            yield _line(f"[{extra}]", *(f"{name} {_installed(name)}" for name in packages))


def extras() -> dict[str, list[str]]:
    """The packages of each extra; none where this package was not installed, but found on the path."""
    found: dict[str, list[str]] = {}
    try:
        needed = requires("circuitdsl") or []
    except PackageNotFoundError:
        return {}
    for line in needed:
        name, extra = re.match(r"[\w.-]+", line), re.search(r"""extra == ["']([\w-]+)["']""", line)
        if name and extra:
            found.setdefault(extra[1], []).append(name[0])
    return found


def _line(name: str, *values: str) -> str:
    return f"  {name:<17} {', '.join(values)}"


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return MISSING


def _processor() -> tuple[str, ...]:
    """Its name and the instruction sets that matter, as far as the system says."""
    try:
        said = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return (platform.processor() or platform.machine(),)
    name = re.search(r"^model name\s*:\s*(.+)$", said, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", said, re.MULTILINE)
    sets = [word for word in (flags[1].split() if flags else ()) if INSTRUCTIONS.fullmatch(word)]
    return (name[1] if name else platform.machine(), " ".join(sets) or "no known instruction sets")


def _device() -> str:
    """The device that `--device auto` takes. Torch is imported only where the machine may have an accelerator."""
    from circuitdsl.models.model import device_name

    try:
        return device_name("auto")
    except Exception as reason:  # a broken torch is what such a report may be about
        return f"unknown: {type(reason).__name__}: {reason}"


def _cache() -> str:
    from circuitdsl.verify.folder import default_path

    try:
        folder = default_path().parent
    except UserError as error:
        return error.message
    return str(folder) if folder.is_dir() else f"{folder} (not there yet)"
