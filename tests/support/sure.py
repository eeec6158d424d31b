"""Published generators with a confidence.json."""

import json
import shutil
from pathlib import Path

INTERCEPT, SLOPE = 2.0, 8.0
"""An answer whose tokens are certain has a confidence of 0.88, one with a mean probability of 0.8 has 0.55."""


def with_confidence(published: Path, folder: Path, min_confidence: float | None) -> Path:
    shutil.copytree(published, folder)
    content = {
        "version": 1, "method": "platt", "intercept": INTERCEPT, "slope": SLOPE, "min_confidence": min_confidence,
    }  # fmt: skip
    (folder / "confidence.json").write_text(json.dumps(content))
    return folder
