"""What docs/interop.md shows runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent.parent / "docs" / "interop.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example_runs(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(BLOCKS[number], f"interop.md, example {number}", "exec"), {})
    if "print(" in BLOCKS[number]:
        moved = float(re.search(r"tensor\((-?[\d.]+)", capsys.readouterr().out)[1])  # type: ignore[index]
        assert -5 < moved < 0  # the answer's logit falls, as line 21 claims of their difference
