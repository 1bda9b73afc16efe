"""Reports of earlier runs, read back from their JSON: as much of them as comparing needs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitdsl.errors import UsageError
from circuitdsl.report.report import VERDICTS, Interval, Measured, Verdict

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class PastClaim:
    """One claim on one task (a channel's is empty), as an earlier run found it."""

    line: int
    text: str
    task: str
    verdict: Verdict
    reason: str
    measured: Measured | None
    #: the header of the block that it stands in
    block: str = ""


@dataclass(frozen=True, slots=True)
class Past:
    """One report; `setting` says what was run, by what it is called."""

    circuit: str
    path: str
    claims: tuple[PastClaim, ...]
    setting: dict[str, str]


def read_reports(path: Path) -> tuple[Past, ...]:
    """The reports in a file that `verify --format json` wrote.

    Raises:
        UsageError: the file cannot be read, or holds something else.
    """
    return tuple(past for _, past in _read(path))


def read_bodies(path: Path) -> tuple[dict[str, Any], ...]:
    """The same reports as the JSON has them; raises what `read_reports` raises."""
    return tuple(body for body, _ in _read(path))


def _read(path: Path) -> tuple[tuple[dict[str, Any], Past], ...]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        reports = tuple((body, _past(body)) for body in (found if isinstance(found, list) else [found]))
    except OSError as error:
        raise UsageError(f"cannot read the report {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a report: {error}", hint=_HOW) from None
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not a report of schema {SCHEMA}: {_lack(error)}", hint=_HOW) from None
    if not reports:
        raise UsageError(f"{path} holds no report", hint=_HOW)
    return reports


_HOW = "make one with: circuitdsl verify SPEC --format json -o report.json"


def _lack(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else "a part of it is of another kind"


def _past(report: dict[str, Any]) -> Past:
    if report["schema"] != SCHEMA:
        raise ValueError(f"schema {report['schema']}, this version reads schema {SCHEMA}")
    spec, model = report["spec"], report["model"]
    setting = {
        "model": str(model["name"]),
        "weights": str(model["sha256"]),
        "device": f"{model['device']} {model['dtype']}",
    }
    for task in report["tasks"]:
        setting[f"task {task['name']}"] = f"{task['corrupt']}, {task['prompts']} prompts, seed {task['seed']}"
        setting[f"prompts of {task['name']}"] = str(task["sha256"])
        setting[f"metric of {task['name']}"] = str(task["metric"])
    return Past(str(spec["circuit"]), str(spec["path"]), tuple(map(_claim, report["claims"])), setting)


def _claim(claim: dict[str, Any]) -> PastClaim:
    if claim["verdict"] not in VERDICTS:
        raise ValueError(f"there is no verdict {claim['verdict']!r}")
    text, task, reason = (str(claim[key] or "") for key in ("text", "task", "reason"))
    measured = claim["measured"]
    found = _measured(measured) if measured else None
    return PastClaim(int(claim["line"]), text, task, claim["verdict"], reason, found, str(claim.get("block") or ""))


def _measured(found: dict[str, Any]) -> Measured:
    ci = _maybe(found["ci"], _interval)
    return Measured(str(found["name"]), _number(found["value"]), ci, int(found["n"]), str(found["unit"]))


def _maybe(value: Any, read: Callable[[Any], Interval]) -> Interval | None:
    return None if value is None else read(value)


def _interval(ci: Any) -> Interval:
    low, high = ci
    return _number(low), _number(high)


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)
