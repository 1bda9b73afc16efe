"""What `--version --verbose` says for a bug report."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.cli import about
from circuitdsl.version import __version__


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    assert cli.run(arguments) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == f"circuitdsl {__version__}"
    return dict(re.fullmatch(r"  (\S+) +(\S.*)", line).groups() for line in others)  # type: ignore[union-attr, misc]


def test_it_says_what_is_installed_and_where(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCUITDSL_CACHE", str(tmp_path / "numbers"))
    found = lines(capsys, "--version", "--verbose")
    assert found == lines(capsys, "--verbose", "-V")
    assert found["python"].startswith(platform.python_version())
    assert found["torch"] == installed_version("torch")
    assert found["cache"] == f"{tmp_path / 'numbers'} (not there yet)"
    assert found["system"] == platform.platform()
    assert found["device"] == "cpu" or found["device"].startswith("cuda")
    assert f"jsonschema {installed_version('jsonschema')}" in found["[test]"]


def test_the_version_alone_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.run(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"circuitdsl {__version__}\n")


def test_what_is_missing_is_said_with_its_cure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = ["torch>=2", "no-such-a>=1; extra == 'odd'", "numpy>=2; extra == 'odd'", "numpy; extra == 'fine'"]
    monkeypatch.setattr(about, "requires", lambda name: needs)
    monkeypatch.setattr(about, "LIBRARIES", ("no-such-b",))
    found = lines(capsys, "--version", "--verbose")
    assert found["no-such-b"] == "not installed"
    assert found["[odd]"] == "no-such-a not installed: pip install 'circuitdsl[odd]'"
    assert found["[fine]"] == f"numpy {installed_version('numpy')}"


@pytest.mark.parametrize(
    ("cpuinfo", "said"),
    [
        ("model name : Fast 9\nflags : fpu sse4_2 avx2 xavx2 avx512f amx_tile", "Fast 9, sse4_2 avx2 avx512f amx_tile"),
        ("Features\t: fp asimd sve bf16\n", f"{platform.machine()}, asimd sve bf16"),
        ("", f"{platform.machine()}, no known instruction sets"),
    ],
)  # fmt: skip
def test_instruction_sets_are_those_that_libraries_choose_by(
    cpuinfo: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: cpuinfo)
    assert ", ".join(about._processor()) == said


def test_a_device_that_cannot_be_asked_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> str:
        raise ImportError("libtorch.so: cannot open shared object file")

    monkeypatch.setattr("circuitdsl.models.model.device_name", broken)
    assert about._device() == "unknown: ImportError: libtorch.so: cannot open shared object file"


def test_a_cache_of_nobody_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCUITDSL_CACHE", "~nobody-of-that-name/numbers")
    assert about._cache() == "CIRCUITDSL_CACHE is ~nobody-of-that-name/numbers, and there is no such user"


def test_it_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'transformer_lens', 'numpy', 'scipy'}"
    asked = "cli.run(['--version', '--verbose'])"
    code = f"import sys; from circuitdsl import cli; {asked}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    device = re.search(r"^  device +(\S+)$", done.stdout, re.MULTILINE)
    assert device
    if device[1] == "cpu":
        assert done.stdout.endswith("set()\n")
