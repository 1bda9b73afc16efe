"""What the modules of the server answer about a text, without the protocol."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from circuitdsl.circuit.vocabulary import METRICS
from circuitdsl.language.diagnostics import Span
from circuitdsl.language.lexer import IN_PHRASES, KEYWORDS, PHRASES, SOFT
from circuitdsl.lsp.colours import colours
from circuitdsl.lsp.completion import complete
from circuitdsl.lsp.document import Document, read
from circuitdsl.lsp.files import from_disk
from circuitdsl.lsp.hover import hover
from circuitdsl.lsp.navigation import definitions, references
from circuitdsl.lsp.outline import folds, outline
from circuitdsl.lsp.rename import CannotRename, rename
from circuitdsl.lsp.verdicts import claim_at, hints, lenses
from circuitdsl.lsp.words import KEYWORD_SAYS, measurement_says, metric_says
from circuitdsl.measurements import KINDS
from circuitdsl.verify.last import LastVerdict, asked, key_of

BASE = """circuit a "A title"
model "pocket"
task ioi(corrupt = abc)
heads mover = 2.4 2.5 at END
"""
POSITIONS = ["IO", "S1", "S2", "PLACE", "OBJECT", "ANSWER", "DISTRACTOR", "END"]
HEADS = [f"{layer}.{head}" for layer in range(4) for head in ("*", *range(8))]
CLAIMS = ["delta", "effect", "lowers", "matters", "negligible", "raises", "stronger"]


def place(document: Document, text: str, nth: int = 1) -> tuple[int, int]:
    """Row and column of the nth place where a text stands."""
    found = [match.start() for match in re.finditer(re.escape(text), document.text)][nth - 1]
    before = document.text[:found]
    return before.count("\n") + 1, found - (before.rfind("\n") + 1) + 1


def offered(line: str, base: str = BASE, path: str = "x.circ") -> list[str]:
    document = read(path, base + line)
    found = complete(document, len(document.rows), len(document.rows[-1]) + 1)
    assert len({offer.text for offer in found}) == len(found)
    return [offer.text for offer in found]


def test_a_path_begins_with_nodes() -> None:
    found = offered("path ")
    assert {"mover", "embed", "2.4", "m1", "each"} <= {*found}
    assert found == [*offered("path each "), "each"]


# --- completion -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("exp", ["expect"]),
        ("expect att", ["attention", "attribution"]),
        ("expect attention(mov", ["mover"]),
        ("expect attention(mover, END -> ", POSITIONS),
        ("expect knockout(mover, ab", ["ablate = "]),
        ("expect knockout(mover, ablate = ", ["corrupt", "mean", "zero"]),
        ("expect faithfulness(", ["keep = ", "ablate = ", "positions = ", "form = "]),
        ("expect faithfulness(keep = ", ["nodes", "edges"]),
        ("expect accuracy(", ["argmax", "top = "]),
        ("pa", ["path"]),
        ("path mover -> mover.q at ", POSITIONS),
        ("path mover -> m2 -> logits : ", CLAIMS),
        ("expect accuracy >= 3% on ", ["ioi"]),
        ("expect attention(mover, END -> IO) > ", ["attention"]),
        ("expect attention(mover, END -> IO) > attention(mov", ["mover"]),
        ("expect attention(mover, END -> IO) > attention(mover, END -> S1) b", ["by"]),
        ("expect attention(mover, END -> IO) > attention(mover, END -> S1) by 3 ti", ["times"]),
        ("mover -> 3.", ["3.*", *(f"3.{head}" for head in range(8))]),
        ("mover -> 3.1.", ["3.1.q", "3.1.k", "3.1.v"]),
        ("mover -> logits ", ["at", "direct", "on", "via", *map(" ".join, PHRASES), ":"]),
        ("mover -> logits at ", [*POSITIONS, "*"]),
        ("mover -> logits at END : ", CLAIMS),
        ("when mover is ", ["knocked"]),
        ("when mover is knocked out\n  ", ["expect"]),
        ("when mover is knocked out\n  expect attention(mover, END -> IO) r", ["rises"]),
        ("expect attention(mover, END -> IO) r", []),
        ("compare a with ", ["a"]),
        ("intervention x\n  ", ["expect", "set", "scale", "replace", "project"]),
        ("intervention x\n  set ", ["attention"]),
        ("intervention x\n  replace mover with ", ["corrupt", "mean", "zero"]),
        ("heads x = 2.4 at END role b", ["backup_mover"]),
        ("heads x = 2.", ["2.*", *(f"2.{head}" for head in range(8))]),
        ("task ", ["ioi", "colored_objects", "greater_than", "induction", "laundry_list"]),
        ("task x = f", ["file"]),
        ("task ioi(", ["corrupt = ", "prompts = ", "seed = ", "bos = ", "order = "]),
        ("task ioi(corrupt = ab", ["abc"]),
        ("metric k", ["kl"]),
        ("metric logit_diff(against = ", ["mean", "max", "corrupt"]),
        ('model "poc', ["pocket", "pocket-deep"]),
        ("channel 0.1 -> 2.4.q : ", ["composition"]),
        ("expect accuracy >= 5% # mo", []),
        ('note "mo', []),
        ("heads new", []),
    ],
)
def test_what_may_stand_at_a_place(line: str, texts: list[str]) -> None:
    signs = {"->", ">=", "<=", ">", "<", ":", "*"}
    assert [text for text in offered(line) if text not in signs] == [text for text in texts if text not in signs]


def test_heads_are_those_of_the_model() -> None:
    assert offered("heads x = ") == ["mover", "all", *HEADS]
    assert [text for text in offered("mlps x = ") if text != "mover"] == ["all", "m0", "m1", "m2", "m3"]
    xl = BASE.replace("pocket", "gpt2-xl")
    assert offered("heads x = ", xl) == ["mover", "all"]  # too many to list
    assert offered("heads x = 47.", xl) == ["47.*", *(f"47.{head}" for head in range(25))]
    assert offered("heads x = 48.", xl) == []


NAMED = """direction u = file("u.safetensors", tensor = "s")
dictionary t1 = transcoder("pocket/transcoders/1")
features some = t1[17] t1[18] at END
2.4[u] -> logits at END : lowers
"""


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("2.4[", ["u"]),
        ("some -> resid2[", ["u"]),
        ("t1[e", ["error"]),
        ("features more = ", ["t1"]),
        ("expect reconstruction(t", ["t1"]),
        ("heads more = t", []),
        ('dictionary t2 = sae("pocket/saes/resid1', []),
        ('dictionary t2 = sae("pocket/saes/resid', [f"pocket/saes/resid{i}" for i in (1, 2, 3, 4)]),
    ],
)
def test_directions_and_dictionaries_are_offered(line: str, texts: list[str]) -> None:
    assert offered(line, BASE + NAMED) == texts


def test_files_of_directions_are_offered(tmp_path: Path) -> None:
    (tmp_path / "u.safetensors").touch()
    assert offered('direction v = file("', path=str(tmp_path / "x.circ")) == ["u.safetensors"]


@pytest.mark.parametrize(
    ("text", "nth", "says"),
    [
        ("u]", 1, '**u**: `direction u = file("u.safetensors", tensor = "s")`'),
        ("u =", 1, '**u**: `direction u = file("u.safetensors", tensor = "s")`'),
        ("t1[", 2, "256 features; it reads `blocks.1.ln2.hook_normalized` and writes `blocks.1.hook_mlp_out`"),
    ],
)
def test_directions_and_dictionaries_are_explained(text: str, nth: int, says: str) -> None:
    document = read("x.circ", BASE + NAMED)
    row, column = place(document, text, nth)
    found = hover(document, row, column)
    assert found is not None and says in found.text
    (spot,) = definitions(document, row, column, from_disk)
    assert spot.span[:2] == ((5, 11) if text.startswith("u") else (6, 12))


def test_a_direction_and_a_dictionary_are_renamed() -> None:
    document = read("x.circ", BASE + NAMED)
    text = applied(document, rename(document, *place(document, "u]"), "way", from_disk))
    assert "direction way = file" in text and "2.4[way] -> logits" in text
    text = applied(document, rename(document, *place(document, "t1["), "words", from_disk))
    assert "dictionary words =" in text and "words[17] words[18]" in text


def test_a_role_has_its_head() -> None:
    assert offered('role x "y"\n  expect attention(')[0] == "self"
    assert "self" not in offered("expect attention(")


def test_files_beside_the_spec(tmp_path: Path) -> None:
    for name in ("roles.circ", "prompts.jsonl", "other.txt"):
        (tmp_path / name).write_text("")
    path = str(tmp_path / "x.circ")
    assert offered('use "', path=path) == ["roles.circ"]
    assert offered('task mine = file("', path=path) == ["prompts.jsonl"]


def test_every_measurement_and_metric_is_offered_and_explained() -> None:
    assert set(offered("expect ")) >= set(KINDS.words)
    assert set(offered("metric ")) == set(METRICS)
    assert [word for word in KINDS.words if not measurement_says(word) and word not in METRICS] == []
    assert all(metric_says(name) for name in METRICS)


def test_every_keyword_is_explained() -> None:
    assert set(KEYWORD_SAYS) == KEYWORDS | SOFT.keys() | IN_PHRASES


# --- quick fixes ----------------------------------------------------------------------------------

CASES = sorted((Path(__file__).parent.parent / "fixtures" / "errors").glob("*.circ"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_did_you_mean_can_be_put_in_place(path: Path) -> None:
    """With the text in place the diagnostic is gone; what stands after "did you mean" is what is written."""
    text = re.sub(r"(?m)^#~ .*\n", "", path.read_text(encoding="utf-8"))
    document = read(str(path), text)
    for found in document.diagnostics:
        if "…" not in found.message.partition("did you mean")[2]:
            assert ("did you mean" in found.message) == bool(found.fixes), found.message
        for fix in found.fixes:
            rows = [*document.rows]
            row, start, last, end = fix.span
            assert row == last
            rows[row - 1] = rows[row - 1][: start - 1] + fix.text + rows[row - 1][end - 1 :]
            again = read(str(path), "\n".join(rows)).diagnostics
            assert (found.message, found.span) not in [(each.message, each.span) for each in again]
            assert fix.text.startswith('"') or fix.text.strip(": ") in found.message


# --- names ----------------------------------------------------------------------------------------

FAMILY = {
    "main.circ": 'use "parts/roles.circ"\n' + BASE + "heads reader = 1.0 at END role looker\n"
    "compare a with b\n  expect overlap above chance\n",
    "parts/roles.circ": 'role looker "looks"\n  expect attention(self, END -> IO) >= 5%\n'
    'circuit b "B"\nmodel "pocket"\nheads x = 2.4\n',
}


@pytest.fixture
def family(tmp_path: Path) -> dict[str, Document]:
    """Two files of which one uses the other."""
    for name, text in FAMILY.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return {name: from_disk(tmp_path / name) for name in FAMILY}


def test_names_are_found_in_used_files(family: dict[str, Document], tmp_path: Path) -> None:
    main, parts = family["main.circ"], family["parts/roles.circ"]
    (spot,) = definitions(main, *place(main, "looker"), from_disk)
    assert (spot.path, spot.span) == (parts.path, Span(1, 6, 1, 12))
    (spot,) = definitions(main, *place(main, "b\n"), from_disk)
    assert (spot.path, spot.span.line) == (parts.path, 3)
    (spot,) = definitions(main, *place(main, "parts/roles"), from_disk)
    assert spot.path == parts.path
    (spot,) = definitions(main, *place(main, "IO") if "IO" in main.text else place(main, "END"), from_disk)
    assert spot.span.line == place(main, "task ioi")[0]
    found = references(parts, *place(parts, "looker"), from_disk, [tmp_path])
    assert [(Path(each.path).name, each.span.line) for each in found] == [("roles.circ", 1), ("main.circ", 6)]


def test_a_built_in_role_is_defined_by_its_file() -> None:
    document = read("x.circ", BASE + "heads late = 3.3 at END role backup_mover\n")
    (spot,) = definitions(document, *place(document, "backup_mover"), from_disk)
    assert Path(spot.path).name == "roles.circ"


def test_a_circuit_is_renamed_in_all_files(family: dict[str, Document], tmp_path: Path) -> None:
    main, parts = family["main.circ"], family["parts/roles.circ"]
    edits = rename(parts, *place(parts, "b "), "better", from_disk, [tmp_path])
    assert {Path(path).name: [fix.span.line for fix in fixes] for path, fixes in edits.items()} == {
        "roles.circ": [3],
        "main.circ": [7],
    }
    assert rename(main, *place(main, "b\n"), "better", from_disk, [tmp_path]) == edits
    with pytest.raises(CannotRename, match=r"there is a circuit a already in main\.circ"):
        rename(parts, *place(parts, "b "), "a", from_disk, [tmp_path])


def applied(document: Document, edits: dict) -> str:
    rows = [*document.rows]
    for fix in sorted(edits[document.path], reverse=True):
        row, start, _, end = fix.span
        rows[row - 1] = rows[row - 1][: start - 1] + fix.text + rows[row - 1][end - 1 :]
    return "\n".join(rows)


def test_a_group_keeps_its_role_under_another_name() -> None:
    document = read("x.circ", BASE + "expect role(mover)\nexpect knockout(mover, ablate = mean) : lowers\n")
    text = applied(document, rename(document, *place(document, "mover"), "late", from_disk))
    assert "heads late = 2.4 2.5 at END  role mover\n" in text and "expect role(late)" in text
    after = read("x.circ", text)
    assert not after.diagnostics
    assert [claim.measurement for claim in after.circuits[0].claims] == [
        claim.measurement for claim in document.circuits[0].claims
    ]
    document = read("x.circ", BASE.replace("mover", "late") + "late -> logits\n")
    text = applied(document, rename(document, *place(document, "late"), "mover", from_disk))
    assert "heads mover = 2.4 2.5 at END  role none\n" in text


def test_a_group_belongs_to_its_circuit() -> None:
    document = read("x.circ", BASE + "mover -> logits\n" + BASE.replace("circuit a", "circuit b") + "mover -> logits\n")
    edits = rename(document, *place(document, "mover", 3), "late", from_disk)
    assert [fix.span.line for fix in edits["x.circ"]] == [9, 9, 10]


def test_a_task_without_a_name_gets_one() -> None:
    document = read("x.circ", BASE + "expect accuracy >= 5% on ioi\n")
    text = applied(
        document, rename(document, *place(document, "on ioi")[:1], place(document, "on ioi")[1] + 3, "t", from_disk)
    )
    assert "task t = ioi(corrupt = abc)\n" in text and text.endswith("on t\n")


def test_positions_are_renamed_with_their_prompts(tmp_path: Path) -> None:
    line = (
        '{"clean": "a, \\"IO\\": b", "corrupt": "c", "answer": " d", "distractor": "e", "positions": {"IO": 1, "X": 0}}'
    )
    (tmp_path / "p.jsonl").write_text(f"{line}\n{line}\n")
    (tmp_path / "p.csv").write_text("clean,corrupt,answer,IO,distractor\na,b,c,1,d\n")
    for name in ("p.jsonl", "p.csv"):
        document = read(
            str(tmp_path / "x.circ"), f'circuit a\ntask file("{name}")\nexpect attention(1.1, END -> IO) >= 5%\n'
        )
        edits = rename(document, *place(document, "IO"), "NAME", from_disk)
        prompts = (tmp_path / name).read_text().split("\n")
        found = [
            prompts[span.line - 1][span.column - 1 : span.end_column - 1] for span, _ in edits[str(tmp_path / name)]
        ]
        assert found == ["IO"] * (2 if name == "p.jsonl" else 1)
        assert [fix.span.line for fix in edits[document.path]] == [3]


def test_a_position_stays_where_its_prompt_file_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"positions": {"IO": 1}}\n' * 50_000)
    text = 'circuit a\ntask file("p.jsonl")\nexpect attention(1.1, END -> IO) >= 5%\n'
    document = read(str(tmp_path / "x.circ"), text)
    with pytest.raises(CannotRename, match=r"p\.jsonl cannot be changed: the file is larger than 1 MB"):
        rename(document, *place(document, "IO"), "NAME", from_disk)


@pytest.mark.parametrize(
    ("text", "new", "why"),
    [
        ("mover", "END", "small letters"),
        ("mover", "m1", "reserved"),
        ("mover", "taken", "already"),
        ("END", "LAST", "comes with circuitdsl"),
        ("heads", "tails", "no name"),
        ("backup_mover", "x", "not renamed from here"),
    ],
)
def test_what_is_not_renamed(text: str, new: str, why: str) -> None:
    document = read("x.circ", BASE + "heads taken = 3.3 at END role backup_mover\n")
    with pytest.raises(CannotRename, match=why):
        rename(document, *place(document, text), new, from_disk)


# --- looking --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mover", "**mover** (heads): 2.4 2.5 at END, role mover"),
        ("2.5", "**2.5**: a head of pocket, which has 4 layers of 8 heads; in mover"),
        ("END", "**END** of ioi: the last token"),
        ("abc", "**abc**: three unrelated names (p_ABC of the paper)"),
        ("circuit", KEYWORD_SAYS["circuit"]),
        ("attention", "the pattern summed over TO's positions, mean over FROM's positions, heads and prompts"),
        ("logit_diff", "options: against = mean | max | corrupt"),
        ("backup_mover", "`when mover is knocked out: expect knockout(self) : lowers`"),
        ("looker", "- `expect attention(self, END -> IO) >= 5%`"),
        (" on ioi", "ioi (corrupt = abc, prompts = 256, seed = 0)"),
    ],
)
def test_what_a_word_means(text: str, says: str) -> None:
    more = """metric logit_diff
heads late = 3.3 at END role backup_mover
heads early = 1.1 at END role looker
expect attention(mover, END -> IO) >= 5%  on ioi
role looker "looks"
  expect attention(self, END -> IO) >= 5%
"""
    document = read("x.circ", BASE + more)
    row, column = place(document, text)
    found = hover(document, row, column + len(text) - 1)
    assert found is not None and says in found.text


def test_the_outline_and_what_folds() -> None:
    document = read(
        "x.circ", BASE + "# one\n# two\nwhen mover is knocked out\n  expect attention(2.4,\n    END -> IO) falls\n"
    )
    (circuit,) = outline(document)
    assert [(entry.name, entry.sort) for entry in circuit.inside] == [
        ("ioi", "task"), ("mover", "group"), ("when mover is knocked out", "condition"),
    ]  # fmt: skip
    assert [tuple(fold) for fold in folds(document)] == [(1, 9, False), (5, 6, True), (7, 9, False), (8, 9, False)]


def test_colours_know_heads_from_numbers() -> None:
    document = read("x.circ", BASE + "mover -> 3.3.q at END : effect <= -1.5%  # why\nheads broken = (2.4 mover\n")
    words = {
        (each.span.line, document.rows[each.span.line - 1][each.span.column - 1 : each.span.end_column - 1]): each.type
        for each in colours(document)
    }
    assert words[4, "2.4"] == "variable" and words[5, "1.5"] == "number" and words[5, ".q"] == "function"
    assert words[5, "mover"] == "variable" and words[6, "mover"] == "variable" and words[5, "# why"] == "comment"
    assert words[1, "a"] == "namespace" and words[3, "ioi"] == "class" and words[4, "END"] == "enumMember"


def test_lenses_and_actions_name_what_they_verify() -> None:
    second = BASE.replace("circuit a", "circuit b") + "expect attention(2.4,\n  END -> IO) >= 1%\n"
    document = read("x.circ", BASE + "mover -> logits\n" + second)
    assert [tuple(lens) for lens in lenses(document, ())] == [(1, "verify", [5]), (6, "verify", [10])]
    assert [claim_at(document, row) for row in (4, 5, 10, 11)] == [None, 5, 10, 10]
    assert lenses(read("x.circ", BASE), ()) == []


def test_verdicts_stand_at_their_claims() -> None:
    document = read("x.circ", BASE + "task flip = ioi(corrupt = flip)\nexpect accuracy >= 5%\n")
    (circuit,) = document.circuits
    (claim,) = circuit.claims
    found = ("ioi", "holds", "99 %", "[98, 100]", 256, "because")
    of = ("pocket", asked(circuit, claim), time.time() - 7205)
    good = LastVerdict(*key_of("a", claim), *found, *of)
    bad = replace(good, task="flip", verdict="fails", figure="3 %", interval="")
    assert [(hint.row, hint.text) for hint in hints(document, [good])] == [(6, "✓ 99 % [98, 100]")]
    assert [hint.text for hint in hints(document, [good, bad])] == ["✗ 3 % on flip"]
    assert [hint.text for hint in hints(document, [replace(good, asked="other")])] == ["~✓ 99 % [98, 100]"]
    shown = hover(document, 6, 1, [good, bad])
    assert shown is not None and "**fails** on flip: 3 %" in shown.text and "changed" not in shown.text
    assert "**holds** on ioi: 99 % [98, 100] n 256\n\nbecause\n\n2 hours ago, pocket" in shown.text
    shown = hover(document, 6, 1, [replace(good, asked="other")])
    assert shown is not None and "what is measured has changed since" in shown.text
    assert lenses(document, [good, bad])[0].title == "verify · 1 holds, 1 fails"


def test_a_verdict_on_other_prompts_is_marked(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("{}\n")
    document = read(
        str(tmp_path / "x.circ"), 'circuit a\nmodel "pocket"\ntask file("p.jsonl")\nexpect accuracy >= 9%\n'
    )
    (circuit,) = document.circuits
    (claim,) = circuit.claims
    known = LastVerdict(*key_of("a", claim), "p", "holds", "95 %", "", 9, "", "pocket", asked(circuit, claim), 0.0)
    assert [hint.text for hint in hints(document, [known])] == ["✓ 95 %"]
    os.utime(tmp_path / "p.jsonl", ns=(1, 1))
    assert [hint.text for hint in hints(document, [known])] == ["~✓ 95 %"]
