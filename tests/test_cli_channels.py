"""`circuitdsl channels`: a table, a picture, one clear error."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

import pytest

from circuitdsl.models.load import POCKET


@pytest.fixture
def run(run):
    """Run the verb: (status, standard output, standard error)."""
    return partial(run, "channels")


def rows(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines() if line.split() and line.split()[0].isdigit()]


def test_the_table_is_of_the_strongest_and_ranked_among_all(run, gpt2_attention) -> None:
    status, out, _ = run(str(gpt2_attention), "--to", "9.9.q", "--top", "4")
    assert status == 0 and "108 heads upstream, chance 0.055" in out
    assert [row[:2] for row in rows(out)[:4]] == [["1", "8.10"], ["2", "8.3"], ["3", "6.6"], ["4", "7.3"]]
    assert "104 more (--top)" in out
    _, out, _ = run(str(gpt2_attention), "--to", "9.9.q", "--from", "8.6[2]", "7.3[1]")
    assert [row[:2] for row in rows(out)] == [["3", "8.6[2]"], ["6", "7.3[1]"]]


def test_a_specs_groups_are_senders_and_readers(run, gpt2_attention, tmp_path: Path) -> None:
    picture = tmp_path / "heat.svg"
    arguments = ("--to", "mover.q", "--from", "inhibition", "-o", str(picture))
    status, out, _ = run("gpt2-small/channels", "--model", str(gpt2_attention), *arguments)
    assert status == 0
    assert [line.split()[1] for line in out.splitlines() if line.startswith("into")] == ["9.6.q", "9.9.q", "10.0.q"]
    assert len(rows(out)) == 12
    words = [text.text for text in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert {"7.3", "8.10", "10.0.q", ".063"} <= set(words)


def test_pictures_have_a_cell_a_head_and_outline_what_is_rare(run, tmp_path: Path) -> None:
    for extra, cells in (((), 24), (("--components",), 24)):
        picture = tmp_path / "heat.svg"
        assert run("pocket", "--to", "3.2.q", *extra, "-o", str(picture))[0] == 0
        tree = ElementTree.parse(picture)
        found = [g for g in tree.iter("{http://www.w3.org/2000/svg}g") if g.get("class") == "cell"]
        assert len(found) == cells
        stories = [g.find("{http://www.w3.org/2000/svg}title").text for g in found]
        assert all("-> 3.2.q: composition 0." in story for story in stories)


def test_pictures_can_be_painted(run, tmp_path: Path) -> None:
    image = tmp_path / "heat.png"
    assert run("pocket", "--to", "3.2.q", "3.1.k", "-o", str(image))[0] == 0
    assert image.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("pocket", "--to", "9.9.q"), 2, "9.9 does not exist: pocket has 4 layers of 8 heads"),
        (("pocket", "--to", "3.2"), 2, "'3.2' is no receiver input"),
        (("pocket", "--to", "3.2[1].q"), 2, "ends in a whole head"),
        (("pocket", "--to", "mover.q"), 2, "'mover' is neither a head nor a group"),
        (("pocket/ioi", "--to", "movers.q"), 2, "groups: suppressor"),
        (("pocket", "--to", "2.0.q", "--from", "3.1"), 2, "none of 3.1 is upstream of 2.0.q"),
        (("pocket", "--to", "2.0.q", "--from", "1.1[16]"), 3, "1.1[16] does not exist"),
        (("pocket", "--to", "0.0.q"), 3, "nothing is upstream of 0.0"),
        (("pocket", "--to", "2.0.q", "-o", "heat.pdf"), 2, "use .svg or .png"),
        (("pocket", "--to", "2.0.q", "--model", "x"), 2, "the model is named already"),
        (("nowhere/at/all/", "--to", "2.0.q"), 3, "nowhere"),
    ],
)
def test_mistakes_are_one_clear_error(run, monkeypatch, arguments, status: int, says: str) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found, _, err = run(*arguments)
    assert (found, says in err) == (status, True), err


def test_a_directory_is_a_model(run) -> None:
    assert run(str(POCKET), "--to", "1.0.v")[0] == 0
