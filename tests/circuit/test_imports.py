"""`use`: roles from other files, and files that must not be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from circuitdsl.api import load
from circuitdsl.circuit.claims import RoleChecks

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
