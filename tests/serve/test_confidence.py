"""confidence.json: what the server takes, what it refuses, and what it makes of a probability."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from serve import confidence
from serve.confidence import Confidence
from serve.repository import Refused, find

GOOD = {"version": 1, "method": "platt", "intercept": 1.5, "slope": 2.0, "min_confidence": 0.4}


def test_a_model_without_the_file_is_served_as_before(published: Path) -> None:
    assert confidence.read(published) is None
    assert find(str(published), None).folder == published.resolve()


def test_the_parameters(tmp_path: Path) -> None:
    (tmp_path / "confidence.json").write_text(json.dumps({**GOOD, "anything": "more"}))
    assert confidence.read(tmp_path) == Confidence(1.5, 2.0, 0.4)
    (tmp_path / "confidence.json").write_text(json.dumps({**GOOD, "min_confidence": None}))
    assert confidence.read(tmp_path) == Confidence(1.5, 2.0, None)


def test_a_confidence_is_the_logistic_function_of_the_log_probability() -> None:
    sure = Confidence(1.5, 2.0, None)
    assert sure.of(-0.5) == round(1 / (1 + math.exp(-0.5)), 6)
    assert sure.of(0.0) == round(1 / (1 + math.exp(-1.5)), 6)
    assert sure.of(-1e9) == sure.of(-math.inf) == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "confidence.json cannot be read"),
        ("[]", "confidence.json holds no JSON object"),
        ({"version": 2}, "has version 2, expected 1"),
        ({"version": True}, "has version True, expected 1"),
        ({"method": "isotonic"}, "method is 'isotonic', expected 'platt'"),
        ({"intercept": None}, "intercept is None, expected a number"),
        ({"intercept": "1"}, "intercept is '1', expected a number"),
        ({"slope": math.nan}, "slope is nan, expected a number"),
        ({"slope": -1}, "slope is -1, expected a number from 0"),
        ({"min_confidence": 1.5}, "min_confidence is 1.5, expected a number from 0 to 1"),
        ({"min_confidence": False}, "min_confidence is False, expected a number"),
    ],
)
def test_a_damaged_file_is_refused_at_the_start_in_one_line(
    change: Any, message: str, published: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(published, tmp_path / "model"))
    (folder / "confidence.json").write_text(change if isinstance(change, str) else json.dumps({**GOOD, **change}))
    with pytest.raises(Refused, match=message) as refused:
        find(str(folder), None)
    assert "\n" not in str(refused.value) and str(folder) in str(refused.value)
