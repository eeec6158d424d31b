"""Test set: the questions that runs were tested on, which must be the same before their models are compared.

It knows the facts of runs and their encoded rows. It does not know how the models answered.
"""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import datasets

from job.errors import ConfigError
from job.run.facts import Answer, Metrics


class Question(NamedTuple):
    """A test question; equal ones are told apart by their number."""

    question: str
    expected: str
    repeat: int
    """How often the same question with the same answer stands before it."""


def read(run: Path, metrics: Metrics, answers: list[Answer]) -> list[Question]:
    """Read the test set of a run: from its encoded rows, or from the answers if all rows were answered.

    Args:
        run: The run folder.
        metrics: Its metrics, which count the test rows.
        answers: The answers of one of its models.

    Raises:
        ConfigError: It has no test rows, or its files do not belong together.
    """
    if metrics.model is None:
        raise ConfigError(f"{run} has no test rows, so nothing was measured that could be compared")
    questions = list(_encoded(run) if (run / "encoded").exists() else _numbered(_pairs(answers)))
    if len(questions) != metrics.model.rows:
        raise ConfigError(
            f"{run} was measured on {metrics.model.rows} test rows, and {len(questions)} are found there; expected a "
            "finished run with its folder `encoded`: run it again"
        )
    unknown = set(by_question(answers)) - set(questions)
    if unknown:
        strange = _quote(min(unknown).question)
        raise ConfigError(f"{run / 'answers.json'} has an answer to {strange}, which is no test row of the run")
    return questions


def by_question(answers: list[Answer]) -> dict[Question, Answer]:
    """Return answers by their questions, in the same order."""
    return dict(zip(_numbered(_pairs(answers)), answers, strict=True))


def require_same(first: Path, questions: list[Question], other: Path, others: list[Question]) -> None:
    """Require that two runs were tested on the same questions with the same expected answers, in any order.

    Raises:
        ConfigError: They were not; the error names the first question that differs.
    """
    missing, added = set(questions) - set(others), set(others) - set(questions)
    if not missing and not added:
        return
    if missing:
        lacking = next(question for question in questions if question in missing)
        text = f"{_quote(lacking.question)} is tested in {first} alone, not in {other}"
        for extra in others:
            if extra in added and extra.question == lacking.question:
                text = (
                    f"to {_quote(lacking.question)}, {first} expects {_quote(lacking.expected)} and {other} expects "
                    f"{_quote(extra.expected)}"
                )
                break
    else:
        extra = next(question for question in others if question in added)
        text = f"{_quote(extra.question)} is tested in {other} alone, not in {first}"
    raise ConfigError(
        f"the runs have different test sets: {text}; compare runs of the same data, split and seed, or with the same "
        "dataset.test"
    )


def _encoded(run: Path) -> Iterator[Question]:
    parts = datasets.load_from_disk(run / "encoded")
    if "test" in parts:
        yield from _numbered(zip(parts["test"]["question"][:], parts["test"]["answer"][:], strict=True))


def _quote(text: str) -> str:
    return repr(textwrap.shorten(text, 120, placeholder=" ..."))


def _pairs(answers: list[Answer]) -> Iterator[tuple[str, str]]:
    return ((answer.question, answer.expected) for answer in answers)


def _numbered(pairs: Iterable[tuple[str, str]]) -> Iterator[Question]:
    seen: Counter[tuple[str, str]] = Counter()
    for pair in pairs:
        yield Question(*pair, seen[pair])
        seen[pair] += 1
