"""What is in the wheel: the package as it is, with its data; and that it works where nothing else of it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from email.parser import Parser
from importlib.util import find_spec
from pathlib import Path

import pytest

from circuitdsl.version import __version__

ROOT = Path(__file__).parent.parent
#: what a user has, without the path that leads to this checkout
ALONE = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONDONTWRITEBYTECODE": "1"}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, cwd=cwd, env=ALONE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("build") is None:
        pytest.skip("the wheel is not built, as build is not installed: pip install build")
    folder = tmp_path_factory.mktemp("wheel")
    isolated = [] if find_spec("hatchling") is None else ["--no-isolation"]
    run(sys.executable, "-m", "build", "--wheel", *isolated, "-o", folder, ROOT, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


def test_the_version_is_written_once() -> None:
    texts = [ROOT / "pyproject.toml", *(ROOT / "circuitdsl").rglob("*.py")]
    assert [path.stem for path in texts if f'"{__version__}"' in path.read_text()] == ["version"]


def test_the_wheel_has_the_files_of_the_package(wheel: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout: nothing says which files there should be")
    listed = run("git", "ls-files", "-z", "circuitdsl", "specs", cwd=ROOT).split("\0")
    tracked = {name.replace("specs/", "circuitdsl/specs/", 1) if name.startswith("specs/") else name for name in listed}
    with zipfile.ZipFile(wheel) as file:
        inside = {name for name in file.namelist() if ".dist-info/" not in name}
        about = Parser().parsestr(file.read(f"circuitdsl-{__version__}.dist-info/METADATA").decode())
        points = file.read(f"circuitdsl-{__version__}.dist-info/entry_points.txt").decode()
    assert inside == tracked - {""}
    assert about["Version"] == __version__
    assert {"lsp", "notebook", "completion"} <= set(about.get_all("Provides-Extra") or ())
    assert all(name in points for name in ("circuitdsl.cli:main", "circuitdsl.testing.plugin", "CircLexer"))


#: imports what comes with an extra, and writes what needs it
EXTRAS = {
    "lsp": "from circuitdsl.lsp.features import make; make()",
    "notebook": "import anywidget; from circuitdsl.report.page.widget import *",
    "completion": "from circuitdsl.cli.completion import script; assert 'pocket/ioi' in script('bash')",
}


def test_the_wheel_works_beside_its_dependencies_alone(wheel: Path, tmp_path: Path) -> None:
    """Installed into an empty folder, of which nothing but the wheel's files are found; dependencies come from here."""
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path / "site", wheel, cwd=tmp_path)
    begin = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import circuitdsl; "
    begin += f"assert circuitdsl.__file__.startswith({str(tmp_path)!r}); "

    def code(text: str) -> str:
        return run(sys.executable, "-c", begin + text, cwd=tmp_path)

    verify = readme_command()
    assert verify[:3] == ["circuitdsl", "verify", "pocket-deep/ioi"]
    shown = code(f"from circuitdsl import cli; sys.exit(cli.run({verify[1:]!r}))")
    assert "30 claims: 30 hold" in shown
    for name, text in EXTRAS.items():
        if name != "notebook" or find_spec("anywidget"):
            code(text)


@pytest.mark.long
def test_the_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """As users install it: with every extra for them, and dependencies from the registry."""
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    there = tmp_path / "venv" / "bin"
    wanted = f"{wheel}[{','.join(EXTRAS)}]"
    run(there / "pip", "install", "-q", "-c", ROOT / "constraints.txt", wanted, cwd=tmp_path)
    assert "30 claims: 30 hold" in run(there / "circuitdsl", *readme_command()[1:], cwd=tmp_path)
    assert "not installed" not in run(there / "circuitdsl", "completion", "bash", cwd=tmp_path)
    for text in EXTRAS.values():
        run(there / "python", "-c", text, cwd=tmp_path)


def readme_command() -> list[str]:
    """The first command that the README runs."""
    found = re.search(r"\.venv/bin/(circuitdsl .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert found
    return found[1].split()
