"""How sure a generator may be of its answers: reads confidence.json, and turns token probabilities into a confidence.

The job has found the two parameters on test answers. It imports neither torch nor transformers: the main process and
the HTTP process use it.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "confidence.json"
VERSION = 1
METHOD = "platt"
AGAIN = "publish the model again"
DIGITS = 6
"""Of a confidence, as of a retriever's."""


@dataclass(frozen=True)
class Confidence:
    """The parameters, and the least confidence of a known answer; None: every answer is known."""

    intercept: float
    slope: float
    min_confidence: float | None

    def of(self, log_probability: float) -> float:
        """Return the probability that an answer is right.

        Args:
            log_probability: the mean of those of its tokens, in nats.
        """
        return round((1 + math.tanh((self.intercept + self.slope * log_probability) / 2)) / 2, DIGITS)


def read(folder: Path) -> Confidence | None:
    """Read confidence.json; None if the model has none.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{FILE} cannot be read ({error}); {AGAIN}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{FILE} holds no JSON object; {AGAIN}")
    version, method = content.get("version"), content.get("method")
    if version != VERSION or isinstance(version, bool):
        raise ValueError(f"{FILE} has version {version!r}, expected {VERSION}; serve it with the Kickoff that made it")
    if method != METHOD:
        raise ValueError(f"{FILE}: method is {method!r}, expected {METHOD!r}; {AGAIN}")
    least = content.get("min_confidence")
    if least is not None:
        least = _number(content, "min_confidence", 0, 1)
    return Confidence(_number(content, "intercept"), _number(content, "slope", 0), least)


def _number(content: dict[str, Any], name: str, low: float = -math.inf, high: float = math.inf) -> float:
    value = content.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{FILE}: {name} is {value!r}, expected a number; {AGAIN}")
    if not low <= value <= high:
        between = f"from {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ValueError(f"{FILE}: {name} is {value!r}, expected a number {between}; {AGAIN}")
    return float(value)
