"""Words that a shell completes, asked of bash itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.cli.completion import SHELLS, script

#: prints what bash offers for the last word of a line
ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_shtab_circuitdsl
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    path = tmp_path_factory.mktemp("completion") / "circuitdsl.bash"
    path.write_text(script("bash"))
    return path


def offered(bash: Path, folder: Path, *words: str) -> set[str]:
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", str(bash), "circuitdsl", *words],
        capture_output=True, text=True, check=True, cwd=folder,
    )  # fmt: skip
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("ver",), {"verify"}),
        (("verify", "--no-"), {"--no-cache", "--no-early-stop"}),
        (("verify", "--device", ""), {"auto", "cpu", "cuda"}),
        (("verify", "pocket/i"), {"pocket/ioi", "pocket/induction"}),
        (("verify", "pocket/ioi", "own"), {"own.circ"}),
        (("verify", "pocket/ioi", "-o", "re"), {"report.json"}),
        (("verify", "pocket/ioi", "--model", "po"), {"pocket", "pocket-deep"}),
        (("compare", "pocket/ioi", "pocket/ind"), {"pocket/induction"}),
        (("view", "r"), {"report.json"}),
        (("discover", "--task", "io"), {"ioi"}),
        (("tasks", "show", "gre"), {"greater_than"}),
        (("graph", "own.circ", "--format", "transformer"), {"transformer_lens"}),
        (("completion", ""), set(SHELLS)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bash_completes(bash: Path, tmp_path: Path, words: tuple[str, ...], expected: set[str]) -> None:
    for name in ("own.circ", "report.json"):
        (tmp_path / name).touch()
    assert offered(bash, tmp_path, *words) == expected


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_one_that_its_shell_reads(shell: str, tmp_path: Path) -> None:
    text = script(shell)
    assert all(name in text for name in ("pocket/ioi", "greater_than", "other-corruptions"))
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"there is no {shell} here; what it would be given was written")
    path = tmp_path / "script"
    path.write_text(text)
    subprocess.run([program, "-n", str(path)], check=True)


def test_the_verb_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["completion", "bash"]) == 0
    assert capsys.readouterr().out == script("bash") + "\n"


def test_without_its_library_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['shtab'] = None; from circuitdsl import cli; cli.main(['completion', 'bash'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "pip install 'circuitdsl[completion]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_start_does_not_pay_for_it() -> None:
    code = "import sys; from circuitdsl import cli; cli.command_line(); print('shtab' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
