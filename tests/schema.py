"""The JSON Schema of a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import circuitdsl.report


def schema() -> dict[str, Any]:
    """The schema that ships beside the records."""
    return json.loads((Path(circuitdsl.report.__file__).parent / "schema.json").read_text())
