"""Where results and the servers' output go."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.model import ROOT

LOGS = ROOT / ".cache" / "bench-logs"
RESULTS = ROOT / "bench" / "results"


def write(path: Path, result: dict[str, Any]) -> None:
    """As JSON, with the time at which it was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dated = {"measured": datetime.now(UTC).isoformat(timespec="seconds"), **result}
    path.write_text(json.dumps(dated, indent=1) + "\n")
