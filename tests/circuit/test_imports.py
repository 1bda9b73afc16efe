"""`use`: roles from other files, and files that must not be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from circuitdsl.api import load
from circuitdsl.measurements.overlap import Overlapping
from circuitdsl.measurements.role import RoleChecks
from circuitdsl.verify.judged import verify_without_model

ROLE = 'role looker "looks"\n  expect attention(self, END -> IO) >= {n}%\n'
SPEC = 'circuit a\nmodel "pocket"\ntask ioi(corrupt = abc)\nheads some = 2.4 at END  role looker\nexpect role(some)\n'


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name}.circ"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "spec.circ"


def messages(path: Path) -> list[str]:
    return [f"{d.code} {d.span.line}: {d.message}" for d in load(path).diagnostics if d.severity == "error"]


def checks(path: Path) -> Any:
    spec = load(path)
    assert spec.ok, [d.message for d in spec.diagnostics]
    found = spec.circuits[0].claims[0].measurement
    assert isinstance(found, RoleChecks)
    return [check.text for check in found.checks]


def test_roles_come_from_other_files(tmp_path: Path) -> None:
    spec = write(tmp_path, spec='use "roles.circ"\n' + SPEC, roles=ROLE.format(n=10))
    assert checks(spec) == ["attention(2.4, END -> IO) >= 10%"]


def test_used_files_may_use_others_and_the_spec_comes_first(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    spec = write(tmp_path, spec='use "lab/one.circ"\n' + SPEC)
    write(tmp_path / "lab", one='use "two.circ"\n', two=ROLE.format(n=20))
    assert checks(spec) == ["attention(2.4, END -> IO) >= 20%"]
    write(tmp_path, spec='use "lab/one.circ"\n' + ROLE.format(n=30) + SPEC)
    assert checks(spec) == ["attention(2.4, END -> IO) >= 30%"]


def test_the_hash_covers_what_is_used(tmp_path: Path) -> None:
    spec = write(tmp_path, spec='use "roles.circ"\n' + SPEC, roles=ROLE.format(n=10))
    first, again = load(spec).circuits[0].sha256, load(spec).circuits[0].sha256
    write(tmp_path, roles=ROLE.format(n=11))
    assert first == again != load(spec).circuits[0].sha256


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../out.circ", "leads out of the folder"),
        ("/etc/passwd", "is an absolute path"),
        ("missing.circ", "there is no file"),
        ("spec.circ", "is used by a file that it uses itself"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, path: str, message: str) -> None:
    (said,) = messages(write(tmp_path, spec=f'use "{path}"\n' + SPEC))
    assert said.startswith("E032 1: ") and message in said


def test_a_circle_of_files_is_refused(tmp_path: Path) -> None:
    spec = write(tmp_path, spec='use "one.circ"\n' + SPEC, one='use "two.circ"\n', two='use "one.circ"\n')
    (said,) = messages(spec)
    assert "one.circ is used by a file that it uses itself" in said


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path, roles=ROLE.format(n=5))
    (tmp_path / "in" / "link.circ").symlink_to(tmp_path / "roles.circ")
    (said,) = messages(write(tmp_path / "in", spec='use "link.circ"\n' + SPEC))
    assert "leads out of the spec's own folder" in said


def test_mistakes_in_a_used_file_are_said_with_their_own_place(tmp_path: Path) -> None:
    broken = "role looker\n  expect attention(self END -> IO) >= 5%\n"
    (said,) = messages(write(tmp_path, spec='use "roles.circ"\n' + SPEC, roles=broken))
    assert said.startswith("E032 1: ") and "roles.circ:2:" in said


THEIRS = (
    'circuit theirs\nmodel "pocket"\ntask ioi(corrupt = abc)\nheads mover = 2.4 3.0 at END\nmover -> logits at END\n'
)
MINE = 'use "lab.circ"\ncircuit mine\nmodel "pocket"\nheads mover = 2.4 2.5 at END\n'
COMPARED = "compare mine with theirs\n  expect overlap >= 30%\n"


def test_circuits_of_used_files_can_be_compared(tmp_path: Path) -> None:
    spec = load(write(tmp_path, spec=MINE + COMPARED, lab=THEIRS))
    assert spec.ok, [d.message for d in spec.diagnostics]
    (mine,) = spec.circuits  # theirs is not verified here
    about = mine.claims[0].measurement
    assert isinstance(about, Overlapping)
    found = about.comparison
    assert (found.first, found.second, len(found.heads.first), len(found.heads.second)) == ("mine", "theirs", 2, 2)
    assert len(found.heads.shared) == 1
    report = verify_without_model(mine, lambda: pytest.fail("weights were loaded"))
    assert report is not None and report.claims[0].verdict == "holds"


def test_a_compared_circuit_must_be_right(tmp_path: Path) -> None:
    (said,) = messages(write(tmp_path, spec=MINE + COMPARED, lab=THEIRS.replace("3.0", "3.9")))
    assert said.startswith("E032 1: ") and "lab.circ:4:19: pocket has 8 heads a layer" in said
    assert messages(write(tmp_path, spec=MINE, lab=THEIRS.replace("3.0", "3.9"))) == []  # it is not asked for


def test_circuits_of_two_used_files_need_one_to_be_reported_with(tmp_path: Path) -> None:
    both = 'use "lab.circ"\nuse "other.circ"\ncompare theirs with others\n  expect overlap >= 50%\n'
    write(tmp_path, lab=THEIRS, other=THEIRS.replace("theirs", "others"))
    assert messages(write(tmp_path, spec=both)) == [
        "E090 3: a comparison is reported with a circuit, and this file has none"
    ]
    assert messages(write(tmp_path, spec=both + "circuit both\n")) == []


def test_models_beside_different_files_are_different(tmp_path: Path) -> None:
    config = '{"n_layer": 4, "n_head": 8}'
    for folder in (tmp_path / "models/small", tmp_path / "lab/models/small"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config)
    mine, theirs = (text.replace('"pocket"', '"models/small"') for text in (MINE, THEIRS))
    spec = write(tmp_path, spec=mine.replace("lab.circ", "lab/lab.circ") + COMPARED)
    write(tmp_path / "lab", lab=theirs)
    assert [said[:4] for said in messages(spec)] == ["E130"]


def test_files_that_compare_each_other_come_to_an_end(tmp_path: Path) -> None:
    one = MINE + COMPARED
    two = 'use "spec.circ"\n' + THEIRS + "compare theirs with mine\n  expect overlap >= 30%\n"
    said = messages(write(tmp_path, spec=one, lab=two))
    assert [s[:4] for s in said] == ["E032"] and "is used by a file that it uses itself" in said[0]


def test_roles_of_used_files_may_name_one_another(tmp_path: Path) -> None:
    one = 'use "two.circ"\nrole looker\n  when helper is knocked out\n    expect knockout(self) : lowers\n'
    two = "role helper\n  expect attribution(self) > 0\n"
    groups = "heads helper = 2.5 at END\n"
    spec = write(tmp_path, spec='use "one.circ"\n' + SPEC.replace("expect", groups + "expect"), one=one, two=two)
    assert checks(spec) == ["when helper is knocked out: knockout(2.4) : lowers"]
    wrong = one.replace("helper", "helpers")
    (said,) = messages(write(tmp_path, spec='use "one.circ"\n' + SPEC, one=wrong, two=two))
    assert "unknown role 'helpers' (the checks of a role name roles, not groups); did you mean 'helper'?" in said
