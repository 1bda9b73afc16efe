"""The house keeps its own rules: style, types, and data that goes one way."""

from __future__ import annotations

import ast
import doctest
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "command",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",), ("lint-imports",)],
    ids=["lint", "format", "types", "imports"],
)
def test_tree_is_clean(command: tuple[str, ...]) -> None:
    tool = Path(sys.executable).parent / command[0]
    done = subprocess.run([str(tool), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_holds_both_sides_of_a_merge() -> None:
    found = subprocess.run(
        ["git", "grep", "-lE", "^(<{7}|>{7}) "], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if found.returncode > 1:
        pytest.skip("this is no git checkout")
    assert not found.stdout


EXAMPLES = [path for path in sorted((ROOT / "circuitdsl").rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem if path.stem != "__init__" else path.parent.stem)
def test_the_examples_of_a_docstring_say_what_they_give(path: Path) -> None:
    names = path.relative_to(ROOT).with_suffix("").parts
    module = import_module(".".join(names).removesuffix(".__init__"))
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_check_needs_no_torch_and_answers_at_once() -> None:
    """`check` and `--help` must not pay for torch (a second and more)."""
    check = "cli.run(['check', 'gpt2-small/ioi'])"
    code = f"import sys; from circuitdsl import cli; {check}; assert 'torch' not in sys.modules"
    best = min(_seconds([sys.executable, "-c", code]) for _ in range(3))
    assert best < 1.0, f"check took {best:.2f} s"


def _seconds(command: list[str]) -> float:
    """CPU seconds of a command, which a busy machine does not change much."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_readme_and_ci_run_the_same_tests() -> None:
    """CI reads its command from the README, so that the one cannot rot without the other."""
    readme = (ROOT / "README.md").read_text()
    command = readme.split("<!-- test command -->\n```bash\n")[1].split("\n```")[0]
    assert "pytest" in command
    assert "-c constraints.txt" in command
    assert "test command" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_imports_what_there_is(path: Path) -> None:
    """Benchmarks are run by hand: a name that has moved would be noticed too late."""
    names = [
        (statement.module, name.name)
        for statement in ast.walk(ast.parse(path.read_text()))
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("circuitdsl")
        for name in statement.names
    ]
    for module, name in names:
        found = import_module(str(module))
        assert hasattr(found, name) or import_module(f"{module}.{name}"), f"{module} has no {name}"
