"""Confidence file: writes confidence.json, by which a server turns token probabilities into a confidence.

It knows the file. It does not know how the figures were found.
"""

import json
from pathlib import Path

from job.run import durable
from job.run.confidence_facts import Confidence

FILE = "confidence.json"
VERSION = 1


def write(model: Path, confidence: Confidence | None) -> None:
    """Write the file into a model folder; remove an older one if there is no confidence."""
    if confidence is None:
        (model / FILE).unlink(missing_ok=True)
        return
    fields = {
        "version": VERSION,
        "method": "platt",
        "formula": "1 / (1 + exp(-(intercept + slope * x)))",
        "x": "mean log-probability of the answer's tokens, the token that ends it included, in nats, in the model's "
        "own distribution, before sampling settings and penalties",
        "intercept": confidence.intercept,
        "slope": confidence.slope,
        "right": f"token F1 of at least {confidence.right_f1} with the expected answer",
        "answers": confidence.answers,
        "min_confidence": confidence.min_confidence,
    }
    durable.write(model / FILE, json.dumps(fields, indent=2) + "\n")
