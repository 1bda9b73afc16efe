"""Directions in specs: what is read from a file, what is refused and why, and that their content counts."""

from __future__ import annotations

import math
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from circuitdsl.api import Spec, load
from circuitdsl.circuit.directions import read_vector
from circuitdsl.verify.session import Session

WIDTH = 128  # of the pocket model
HEAD = 'circuit one\nmodel "pocket"\ntask ioi(prompts = 40)\n'
LINE = 'direction u = file("u.safetensors", tensor = "s")\n'
CLAIM = "expect knockout(0.6[u] at END) : lowers\n"


def vector(seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(WIDTH, generator=torch.Generator().manual_seed(seed)), dim=0)


def spec(folder: Path, text: str = LINE + CLAIM, **tensors: torch.Tensor) -> Spec:
    if tensors:
        save_file(tensors, folder / "u.safetensors")
    (folder / "one.circ").write_text(HEAD + text)
    return load(folder / "one.circ")


def said(found: Spec) -> list[str]:
    return [f"{d.span.line}:{d.span.column} {d.code} {d.message}" for d in found.diagnostics]


def test_a_direction_is_read_and_made_a_unit_vector(tmp_path: Path) -> None:
    found = spec(tmp_path, s=3 * vector())
    assert said(found) == ["4:20 W066 u has the length 3: it is divided by that"]
    (site,) = found.circuits[0].claims[0].measurement.patch.sites
    assert str(site.node) == "0.6[u]" and site.node.is_part and str(site.node.whole) == "0.6"
    unit = struct.unpack(f"<{WIDTH}f", site.node.along.unit)
    assert math.hypot(*unit) == pytest.approx(1, abs=1e-6)
    assert unit == pytest.approx(vector().tolist(), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_number_formats(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"s": vector().to(dtype), "t": torch.ones(3)}, tmp_path / "u.safetensors")
    assert read_vector(tmp_path / "u.safetensors", "s") == pytest.approx(vector().to(dtype).tolist())


def _broken(value: float) -> torch.Tensor:
    found = vector()
    found[4] = value
    return found


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        ({"s": torch.ones(5)}, "has 5 numbers, and the residual stream of pocket 128"),
        ({"s": _broken(float("nan"))}, "number 5 of 128 of u is nan"),
        ({"s": _broken(float("inf"))}, "number 5 of 128 of u is inf"),
        ({"s": torch.zeros(WIDTH)}, "u is zero everywhere"),
        ({"other": vector()}, "has no tensor s"),
        ({"s": torch.ones(2, WIDTH)}, "is no vector: its shape is [2, 128]"),
        ({"s": torch.ones(WIDTH, dtype=torch.int64)}, "s holds I64"),
    ],
)
def test_what_is_no_direction_is_refused(tmp_path: Path, tensors: dict[str, torch.Tensor], says: str) -> None:
    found = spec(tmp_path, **tensors)
    (one,) = [d for d in found.diagnostics if d.severity == "error"]
    assert one.code == "E066" and says in one.message and one.help and one.span.line == 4


def test_other_files_are_refused_and_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path(tmp_path / "exploded").touch, ())

    file = tmp_path / "u.safetensors"
    torch.save({"s": vector()}, file)
    contents = [pickle.dumps(Bomb()), file.read_bytes(), b"", b"x" * 100, struct.pack("<Q", 10) + b'{"s": 1}  ']
    save_file({"s": vector()}, file)
    whole = file.read_bytes()
    lying = struct.pack("<Q", len(text := b'{"s":{"dtype":"F32","shape":[9],"data_offsets":[0,999]}}')) + text
    for data in (*contents, whole[:-8], whole[:40], lying, struct.pack("<Q", 2**60) + b"{}"):
        file.write_bytes(data)
        (one,) = spec(tmp_path).diagnostics
        assert one.code == "E066", one
    assert not (tmp_path / "exploded").exists()
    file.unlink()
    assert "cannot be read: No such file" in said(spec(tmp_path))[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('direction u = file("../u.safetensors")\n', "4:20 E032 ../u.safetensors leads out of the folder"),
        ('direction u = file("/etc/u.safetensors")\n', "4:20 E032 /etc/u.safetensors is an absolute path"),
        ('direction u = folder("u.safetensors")\n', "4:15 E084 a direction comes from a file, not from 'folder'"),
        ('direction u = file("u.safetensors", name = "s")\n', "4:37 E046 unknown option 'name' of a direction"),
        ("direction u = file(tensor = 3)\n", '4:29 E047 tensor is the name of a tensor: tensor = "s"'),
        (LINE + LINE, "5:11 E050 the direction u is defined twice"),
        (LINE + "0.6[v] -> m1 at END\n", "5:1 E067 unknown direction 'v'"),
        (LINE + "heads part = 0.6[v] at END\n", "5:14 E067 unknown direction 'v'"),
        (LINE + "0.6 -> 1.1[u].q at END\n", "5:8 E070 1.1[u] is a part of what 1.1 writes: it reads nothing"),
        (LINE + "expect attention(0.6[u], END -> IO) >= 0%\n", "5:18 E076 0.6[u]: only whole heads attend and copy"),
        (
            LINE + "expect knockout(0.6[u] 0.6[2]) : lowers\n",
            "5:17 E051 0.6[2] and 0.6[u] cannot be patched together",
        ),
        (LINE + "expect knockout(0.6 0.6[u]) : lowers\n", "5:17 E051 0.6[u] is part of 0.6, which is named too"),
        (LINE + "(resid2[u] 0.6) -> logits at END : lowers\n", "5:1 E051 0.6 and resid2[u] cannot be patched together"),
        (LINE + "expect knockout(resid2[3] at END) : lowers\n", "5:17 E061 resid2 has no parts with numbers"),
        (LINE + "channel 0.6[u] -> 1.1.q : composition rank <= 3\n", "5:9 E110 a channel joins heads only, not 0.6[u]"),
        (
            LINE + "when 0.6[u] at END is knocked out\n  expect attribution(0.6) falls\n",
            "6:10 E087 what 0.6 writes is not read while 0.6[u] is replaced",
        ),
        (
            LINE + 'intervention cut "…"\n  project out 0.6[u]\n  replace 0.6 with zero\n  expect accuracy falls\n',
            "6:3 E121 0.6 is replaced afterwards, with its part 0.6[u]",
        ),
    ],
)
def test_mistakes_have_a_place_and_a_reason(tmp_path: Path, text: str, says: str) -> None:
    found = spec(tmp_path, text, s=vector())
    assert next(each for each in said(found) if " W" not in each).startswith(says), said(found)


def test_the_word_direction_is_a_name_elsewhere(tmp_path: Path) -> None:
    found = spec(tmp_path, "heads direction = 0.6 at END\ndirection -> m1 : lowers\n")
    assert found.ok and not said(found)


def test_another_content_is_another_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers that are known of one vector are not given for another in the same file, and the spec's hash differs."""
    monkeypatch.setenv("CIRCUITDSL_CACHE", str(tmp_path / "cache"))
    text = LINE + "expect knockout(resid1[u] at END) : delta <= 100\n"
    reports = []
    for seed in (0, 1, 0):
        with Session("pocket") as session:
            reports.append(session.verify(spec(tmp_path, text, s=vector(seed)), prompts=40))
    values = [report.claims[0].measured.value for report in reports]
    assert values[0] == values[2] != values[1] and not np.isclose(values[0], values[1])
    hashes = [report.spec.sha256 for report in reports]
    assert hashes[0] == hashes[2] != hashes[1]
