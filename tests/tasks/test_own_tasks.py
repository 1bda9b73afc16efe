"""Tasks that installed packages add: loaded when asked for, refused in a sentence where they are broken."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.api import load, loads
from circuitdsl.tasks.registry import SHIPPED, TASKS
from circuitdsl.tasks.task import TaskError

PAGE = (Path(__file__).parent.parent.parent / "docs" / "tasks.md").read_text()
SPEC = """circuit t
model "pocket"
task gift(corrupt = swap, prompts = 40)
heads mover = 2.4 2.5 at END
expect attention(mover, END -> IO) >= 5%
expect accuracy >= 50%
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch):
    """Installs a package of one module; `installed(code, points)`."""

    def call(code: str, points: str, module: str = "gift_tasks") -> None:
        (tmp_path / f"{module}.py").write_text(code)
        folder = tmp_path / f"{module}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, module, raising=False)

    yield call
    sys.modules.pop("gift_tasks", None)


@pytest.fixture
def gift(installed) -> None:
    """The package of the page, as it stands there."""
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "GIFT = Task(" in c)
    (toml,) = (c for c in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "circuitdsl.tasks" in c)
    installed(code, "[circuitdsl.tasks]\n" + toml.partition('"circuitdsl.tasks"]\n')[2].replace('"', ""))


def test_the_package_of_the_page_works(pocket, gift, tmp_path: Path, capsys) -> None:
    (tmp_path / "t.circ").write_text(SPEC)
    assert load(str(tmp_path / "t.circ")).ok
    assert cli.run(["verify", str(tmp_path / "t.circ")]) == 0
    assert "gift: logit_diff" in capsys.readouterr().out
    assert cli.run(["tasks"]) == 0
    assert "Who is given something" in capsys.readouterr().out
    assert cli.run(["tasks", "show", "gift"]) == 0
    wrong = loads(SPEC.replace("END -> IO", "END -> PLACE"))
    assert "the task gift has no position PLACE" in wrong.problems


def test_it_is_loaded_only_when_it_is_asked_for(gift) -> None:
    assert loads(SPEC.replace("gift(corrupt = swap", "ioi(corrupt = abc")).ok
    assert "gift" in TASKS and list(TASKS)[-1] == "gift"
    assert "did you mean 'gift'" in loads(SPEC.replace("task gift", "task gifd")).problems
    assert "gift_tasks" not in sys.modules
    assert TASKS["gift"].title and "gift_tasks" in sys.modules


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise RuntimeError('out of order')", "cannot be loaded: RuntimeError: out of order"),
        ("import nothing_of_the_kind", "cannot be loaded: ModuleNotFoundError"),
        ("x = 1", "cannot be loaded: AttributeError"),
        ("GIFT = 3", "but an int"),
        ("from circuitdsl.tasks.ioi import IOI as GIFT", "calls itself ioi"),
    ],
)
def test_a_broken_package_is_said_in_a_sentence(installed, tmp_path: Path, capsys, code: str, says: str) -> None:
    installed(code, "[circuitdsl.tasks]\ngift = gift_tasks:GIFT\n")
    (tmp_path / "t.circ").write_text(SPEC)
    assert cli.run(["check", str(tmp_path / "t.circ")]) == 3
    err = capsys.readouterr().err
    assert says in err and "gift" in err and "gift-tasks 1.0" in err and "Traceback" not in err
    assert cli.run(["tasks"]) == 0
    out, err = capsys.readouterr()
    assert "Indirect object" in out and says in err
    with pytest.raises(TaskError):
        TASKS["gift"]


def test_what_ships_cannot_be_replaced(installed) -> None:
    installed("raise RuntimeError", "[circuitdsl.tasks]\nioi = gift_tasks:X\nBad Name = gift_tasks:X\n")
    assert TASKS["ioi"] is SHIPPED["ioi"]
    assert list(TASKS) == list(SHIPPED)
    assert len(TASKS) == len(SHIPPED)
