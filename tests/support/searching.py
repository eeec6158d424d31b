"""Searches whose trials take as long as their rows and epochs say, whatever the machine is doing."""

from dataclasses import replace
from pathlib import Path

import pytest

from job.run import fact_files
from job.run.search_facts import SearchFacts, Trial
from job.search import rehearsal, trial
from job.search.plan import Setting
from job.search.trial import Bench

ROW, START, SCORE = 0.01, 0.1, 0.1
AUTO = {"epochs": "auto", "learning_rate": "auto", "keep": "last", "search_minutes": 0.2}


def keep_steady_time(monkeypatch: pytest.MonkeyPatch, longest: int = 1000) -> None:
    """Replace the times that a search measures; after `longest` trials the job breaks off as if it was killed."""
    run, measure, made = trial.run, rehearsal.measure, []

    def steady(bench: Bench, setting: Setting, scored: bool) -> Trial:
        if len(made) == longest:
            raise KeyError("killed")
        found = run(bench, setting, scored)
        made.append(found)
        training = ROW * setting.rows * setting.epochs
        score = SCORE * scored
        return replace(found, seconds=START + training + score, training_seconds=training, score_seconds=score)

    def measured(bench: Bench) -> SearchFacts:
        return replace(measure(bench), row_seconds=ROW, start_seconds=START)

    monkeypatch.setattr(trial, "run", steady)
    monkeypatch.setattr(rehearsal, "measure", measured)


def read_facts(run: str | Path) -> SearchFacts:
    found = fact_files.read(Path(run), SearchFacts)
    assert found is not None
    return found


def numbers(facts: SearchFacts) -> list[tuple[float, int, int, float | None, float | None]]:
    return [(each.learning_rate, each.epochs, each.rows, each.loss, each.score) for each in facts.trials]
