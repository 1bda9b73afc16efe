"""What a dry run says of cells: parts, memory, hours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from circuitdsl.matrix.forecast import CellWork, MatrixForecast, work_of_cell
from circuitdsl.matrix.planning import plan
from circuitdsl.matrix.runs import Run
from circuitdsl.matrix.worker import Settings, Worker
from circuitdsl.verify import measure
from circuitdsl.verify.portions import Sizes


def test_very_many_cells_have_a_line_for_each_model(capsys: pytest.CaptureFixture[str]) -> None:
    work = CellWork("a.circ", "m", "", 2, "cuda", (3600.0, 7200.0), 10**9, 3 * 10**9, (2, 5))
    found = MatrixForecast(tuple(replace(work, spec=f"{i}.circ", model=f"m{i % 2}") for i in range(50)), known=3)
    found.show(Console(width=120, legacy_windows=False))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines[1:4]] == [["m0", "cuda", "50"], ["m1", "cuda", "50"], ["all", "100", "3.0"]]
    assert ["GPU", "hours:", "100", "to", "200"] in lines
    assert found.to_json()["gpu_hours"] == (100.0, 200.0) and found.to_json()["cpu_hours"] == (0.0, 0.0)


@pytest.mark.parametrize("sizes", [Sizes(), Sizes(1e-4, runs=0)])
def test_a_cell_is_measured_in_as_many_parts_as_are_forecast(lab: Path, monkeypatch, sizes: Sizes) -> None:
    """With one look at all prompts: the work is the same then, whatever is decided."""
    (cell,) = plan([Run(("ioi.circ",), options={"early_stop": False})])
    settings, own, counted = Settings(cache=False, sizes=sizes), measure.portions, list[int]()

    def noted(*given: object) -> object:
        counted.append(len(found := own(*given)))
        return found

    monkeypatch.setattr(measure, "portions", noted)
    assert not Worker(settings).verify(cell).error
    work = work_of_cell(cell, settings)
    assert work.portions == (sum(counted), sum(counted)) and sum(counted) > (0 if sizes == Sizes() else 3)
    assert work.seconds[0] > 0 and work.memory > work.weights > 0
