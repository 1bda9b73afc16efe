"""`fmt` and `explain` as a user meets them."""

from __future__ import annotations

import io
import re
import stat
import sys
from pathlib import Path

import pytest

from circuitdsl import cli
from circuitdsl.api import SpecError, loads
from circuitdsl.cli.arguments import Verbs
from circuitdsl.language.diagnostics import Diagnostic, codes, foremost
from circuitdsl.verify.session import Session

UGLY, NEAT = 'circuit   a\nmodel "gpt2" # small\n', 'circuit a\nmodel "gpt2"  # small\n'
WRONG = "circuit a\nheads Mover = 9.9\n"


@pytest.fixture
def ugly(tmp_path: Path) -> Path:
    path = tmp_path / "a.circ"
    path.write_text(UGLY)
    return path


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


# --- fmt ------------------------------------------------------------------------------------------


def test_a_file_is_formatted_once(run, ugly: Path) -> None:
    assert run("fmt", str(ugly)) == (0, f"{ugly} formatted\n", "")
    assert ugly.read_text() == NEAT
    assert run("fmt", str(ugly)) == (0, "", "")
    assert [path.name for path in ugly.parent.iterdir()] == ["a.circ"]


def test_a_file_keeps_its_mode(run, ugly: Path) -> None:
    for mode in (0o600, 0o664):
        ugly.write_text(UGLY)
        ugly.chmod(mode)
        assert run("fmt", str(ugly))[0] == 0
        assert stat.S_IMODE(ugly.stat().st_mode) == mode


def test_check_says_what_would_change_and_writes_nothing(run, ugly: Path, tmp_path: Path) -> None:
    neat = tmp_path / "neat.circ"
    neat.write_text(NEAT)
    assert run("fmt", "--check", str(ugly), str(neat)) == (1, "", f"{ugly} would change\n")
    assert run("fmt", "--check", str(neat)) == (0, "", "")
    assert ugly.read_text() == UGLY


def test_a_diff_is_printed_and_nothing_written(run, ugly: Path) -> None:
    status, out, _ = run("fmt", "--diff", str(ugly))
    assert status == 0
    assert "\n-circuit   a\n" in out and "\n+circuit a\n" in out
    assert run("fmt", "--diff", "--check", str(ugly)) == (1, out, "")
    assert ugly.read_text() == UGLY


def test_standard_input_goes_to_standard_output(run, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, UGLY)
    assert run("fmt", "-") == (0, NEAT, "")
    stdin(monkeypatch, WRONG)
    status, out, err = run("fmt", "-")
    assert (status, out) == (2, "")
    assert err.startswith("<stdin>:2:7: error[E022]:")
    assert run("fmt", "-", "-")[0] == 2


def test_a_wrong_file_is_left_alone_and_the_others_are_formatted(run, ugly: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.circ"
    wrong.write_text(WRONG)
    status, _, err = run("fmt", str(wrong), str(tmp_path / "none.circ"), str(ugly))
    assert status == 2
    assert "error[E022]" in err and "error[E001]: there is no file" in err
    assert (wrong.read_text(), ugly.read_text()) == (WRONG, NEAT)


def test_line_ends_and_a_byte_order_mark_are_made_plain(run, ugly: Path) -> None:
    ugly.write_bytes(b"\xef\xbb\xbf" + NEAT.replace("\n", "\r\n").encode())
    assert run("fmt", "--check", str(ugly))[0] == 1
    assert run("fmt", str(ugly))[0] == 0
    assert ugly.read_bytes() == NEAT.encode()


# --- explain --------------------------------------------------------------------------------------


def test_every_code_is_listed(run) -> None:
    status, out, _ = run("explain")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == list(codes())


@pytest.mark.parametrize("asked", ["E012", "e012", "[E012]"])
def test_a_code_is_explained_with_its_example(run, asked: str) -> None:
    status, out, _ = run("explain", asked)
    assert status == 0
    assert out.startswith("E012: '@' is reserved\n")
    assert "\n    @mover -> logits\n" in out


def test_an_unknown_code_is_guessed(run) -> None:
    status, out, err = run("explain", "E0400")
    assert (status, out) == (2, "")
    assert "there is no code E0400; did you mean 'E040'?" in err


# --- check ----------------------------------------------------------------------------------------

DOUBTFUL = 'circuit a\nmodel "gpt2"\ntask ioi\nheads b = 9.9 at END\nheads c = 8.8 at END\nb -> logits\n'


def test_warnings_are_shown_and_counted(run, tmp_path: Path) -> None:
    path = tmp_path / "a.circ"
    path.write_text(DOUBTFUL)
    status, out, err = run("check", str(path))
    assert (status, out) == (0, f"{path}: a: 1 claim, no errors, 1 warning\n")
    assert err.startswith(f"{path}:5:7: warning[W003]: the group c is never used")


def test_a_terminal_shows_the_same_words(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.circ"
    path.write_text("circuit a\ntask ioj\n")
    plain = run("check", str(path))
    assert plain[2].endswith("1 error; circuitdsl explain E042 says more about the first\n")
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True)
    monkeypatch.setenv("TERM", "dumb")
    status, _, err = run("check", str(path))
    assert status == 2
    assert [line.rstrip() for line in err.splitlines()] == [line.rstrip() for line in plain[2].splitlines()]


def test_the_list_of_verbs_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each verb at 80 columns; the verb's own help begins with the same words."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.run(["--help"])
    listed = dict(re.findall(r"^    ([a-z]+) +(\S.*)$", capsys.readouterr().out, re.MULTILINE))
    (verbs,) = (action for action in cli.command_line()._actions if isinstance(action, Verbs))
    assert list(listed) == list(verbs.choices)
    monkeypatch.setenv("COLUMNS", "120")
    for verb, said in listed.items():
        with pytest.raises(SystemExit):
            cli.run([verb, "--help"])
        assert f"{said[0].upper()}{said[1:]}." in capsys.readouterr().out


# --- many mistakes --------------------------------------------------------------------------------

MANY = 'circuit many\nmodel "pocket"\ntask ioi\n' + "\n".join(f"nobody{i} -> logits : lowers" for i in range(70))


@pytest.mark.parametrize("verb", ["check", "verify", "plan", "render", "graph", "mutate", "falsify"])
def test_of_many_mistakes_the_first_are_shown_and_the_others_counted(run, tmp_path: Path, verb: str) -> None:
    (tmp_path / "many.circ").write_text(MANY)
    status, out, err = run(verb, str(tmp_path / "many.circ"))
    assert (status, out, err.count("error[E0")) == (2, "", 50)
    assert "and 20 more: circuitdsl check --all shows them\n70 errors; circuitdsl explain" in err


def test_all_mistakes_are_shown_where_they_are_asked_for(run, tmp_path: Path) -> None:
    (tmp_path / "many.circ").write_text(MANY)
    _, _, err = run("check", "--all", str(tmp_path / "many.circ"))
    assert err.count("error[E0") == 70 and "more:" not in err


def test_syntax_errors_and_annotations_are_counted_as_well(run, tmp_path: Path) -> None:
    (tmp_path / "many.circ").write_text("circuit many\n" + "heads = \n" * 70)
    _, _, err = run("fmt", str(tmp_path / "many.circ"))
    assert err.count("error[E0") == 50 and "and 20 more" in err
    _, out, _ = run("verify", "--format", "github", str(tmp_path / "many.circ"))
    assert out.count("::error") == 50


def test_warnings_do_not_hide_an_error() -> None:
    found = [Diagnostic("W003", "warning", f"unused {i}") for i in range(70)] + [Diagnostic("E040", "error", "unknown")]
    shown, more = foremost(found)
    assert list(shown) == [*found[:49], found[-1]] and more.startswith("and 21 more")
    assert foremost(found[:50]) == (found[:50], "")


def test_an_error_of_a_program_counts_them_too(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as refused, Session() as session:
        session.spec(loads(MANY))
    assert str(refused.value).count("error[") == 50 and "and 20 more" in str(refused.value)
    assert loads(MANY).problems.count("error[") == 70
