"""A spec names files in its own folder or below; what lies elsewhere is not opened, unless who runs it allows that."""

from __future__ import annotations

from pathlib import Path

import pytest

from circuitdsl import SpecError, UserError, cli
from circuitdsl.api import load, loads
from circuitdsl.verify.session import Session

SPEC = 'circuit t\nmodel "pocket"\ntask mine = file("{file}")\nexpect accuracy >= 0%\n'
SECRET = "a secret line"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of specs beside a file that is none of theirs."""
    (tmp_path / "specs" / "below").mkdir(parents=True)
    (tmp_path / "secret.jsonl").write_text(SECRET)
    (tmp_path / "specs" / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (tmp_path / "specs" / "away").symlink_to(tmp_path)
    return tmp_path / "specs"


def ways_out(folder: Path) -> list[str]:
    absolute = (folder.parent / "secret.jsonl").as_posix()
    return [absolute, "../secret.jsonl", "below/../../secret.jsonl", "link.jsonl", "away/secret.jsonl", "~/x.jsonl"]


def test_a_prompt_file_outside_the_folder_is_not_opened(folder: Path, capsys) -> None:
    for at, file in enumerate(ways_out(folder)):
        path = folder / f"{at}.circ"
        path.write_text(SPEC.format(file=file))
        spec = load(path)
        assert [d.code for d in spec.diagnostics if d.severity == "error"] == ["E032"], file
        assert not loads(SPEC.format(file=file), path).ok
        with (
            Session(cache=False) as session,
            pytest.raises(SpecError, match="a prompt file lies in the spec's own folder"),
        ):
            session.verify(path)
        for verb in ("check", "verify", "plan", "falsify", "mutate"):
            assert cli.run([verb, str(path)]) == 2
        said = capsys.readouterr()
        assert "--allow-outside" in said.err and SECRET not in said.err + said.out


def test_who_runs_it_may_allow_it(folder: Path, capsys) -> None:
    for at, file in enumerate(ways_out(folder)[:-1]):
        path = folder / f"{at}.circ"
        path.write_text(SPEC.format(file=file))
        assert load(path, allow_outside=True).ok
        assert cli.run(["check", "--allow-outside", str(path)]) == 2
        assert "line 1" in capsys.readouterr().err  # it was read, and has no prompts
        with Session(cache=False, allow_outside=True) as session, pytest.raises(UserError, match="line 1"):
            session.verify(path)


def test_files_in_the_folder_and_below_are_its_own(folder: Path) -> None:
    for file in ("mine.jsonl", "below/mine.jsonl", "./below/mine.jsonl"):
        assert loads(SPEC.format(file=file), folder / "t.circ").ok
