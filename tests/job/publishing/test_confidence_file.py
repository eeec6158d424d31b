"""confidence.json in the published folder: written, replaced and removed with what was measured."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from job.config.read import load
from job.config.schema import Config
from job.evaluation.confidence import calibrate
from job.publishing import confidence, contract, publish
from job.report import report
from job.run import fact_files
from job.run.facts import Answer, Metrics

ANSWERS = [
    Answer(f"row {number}", "Q?", "A.", "A.", float(number % 3 == 0), True, probability=0.9 - 0.2 * (number % 3 > 0))
    for number in range(60)
]


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def measured(run: Path, min_confidence: float | None) -> Config:
    """The run as if its test answers could carry a confidence."""
    metrics = fact_files.read(run, Metrics)
    assert metrics is not None
    fact_files.write(run, replace(metrics, confidence=calibrate(ANSWERS, min_confidence, seed=0)))
    return load(run / "run.yaml")


def test_a_run_with_few_test_answers_has_none(finished: Path) -> None:
    metrics = fact_files.read(finished, Metrics)
    assert metrics is not None and metrics.model is not None and metrics.confidence is None
    assert not (finished / "model" / "confidence.json").exists()
    assert "confidence" not in (finished / "model" / "README.md").read_text()
    assert "<h2>Confidence</h2>" not in (finished / "report.html").read_text()


def test_it_is_published_and_the_mark_the_card_and_the_report_know_it(run: Path) -> None:
    config = measured(run, 0.4)
    publish.assemble(run, config)
    report.report(run, config)
    content = json.loads((run / "model" / "confidence.json").read_text())
    assert (content["version"], content["method"], content["min_confidence"]) == (1, "platt", 0.4)
    assert content["slope"] > 0 and content["right"].startswith("token F1 of at least 0.5")
    mark = contract.read_mark((run / "model" / contract.MARK).read_bytes())
    assert mark is not None and "confidence.json" in mark
    assert contract.foreign_files_in(run / "model") == []
    assert "Below 0.4 the server says that it does not know." in (run / "model" / "README.md").read_text()
    html = (run / "report.html").read_text()
    assert "<h2>Confidence</h2>" in html and "have a confidence of at least 0.4 and are given" in html
    published = json.loads((run / "model" / "metrics.json").read_text())["confidence"]
    assert (published["answers"], published["right"], len(published["bins"])) == (60, 20, 5)


def test_an_older_one_goes_with_the_confidence_that_it_held(run: Path) -> None:
    publish.assemble(run, measured(run, None))
    assert json.loads((run / "model" / "confidence.json").read_text())["min_confidence"] is None
    metrics = fact_files.read(run, Metrics)
    assert metrics is not None
    fact_files.write(run, replace(metrics, confidence=None))
    publish.assemble(run, load(run / "run.yaml"))
    assert not (run / "model" / confidence.FILE).exists()
