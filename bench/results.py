"""Results: the folders for results and logs, and the results' file format."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.model import ROOT

LOGS = ROOT / ".cache" / "bench-logs"
RESULTS = ROOT / "bench" / "results"


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result as JSON, with the time of the measurement."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dated = {"measured": datetime.now(UTC).isoformat(timespec="seconds"), **result}
    path.write_text(json.dumps(dated, indent=1) + "\n")
