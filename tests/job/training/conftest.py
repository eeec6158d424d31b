"""What the tests of training share."""

from pathlib import Path

import pytest
from datasets import DatasetDict
from fork_server import ForkServer
from resumed import Place

from job.config.schema import ModelSection
from job.model.base import fetch


@pytest.fixture(scope="module")
def calm(still: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base without dropout, as the base stage leaves it."""
    folder = tmp_path_factory.mktemp("calm") / "base"
    fetch(ModelSection(base=str(still), max_length=64, max_new_tokens=12), folder)
    return folder


@pytest.fixture
def place(rows: DatasetDict, calm: Path, tmp_path: Path, jobs: ForkServer) -> Place:
    return Place(tmp_path, rows, calm, jobs)
