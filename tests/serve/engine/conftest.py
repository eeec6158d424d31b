"""A model as the engine loads it, in each type of number."""

from pathlib import Path

import pytest
from transformers import PreTrainedModel

from serve.engine.model import load


@pytest.fixture(scope="module", params=["float32", "auto"])
def model(request: pytest.FixtureRequest, never_ending: Path) -> PreTrainedModel:
    return load(never_ending, "cpu", request.param, threads=1)
