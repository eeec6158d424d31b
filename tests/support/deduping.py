"""Rows through dedupe: which questions are kept."""

import datasets

from job.config.schema import DedupeSection
from job.data.dedupe import dedupe as stage
from job.run.row_facts import Rejection

ON = DedupeSection()


def dataset(pairs: list[tuple[str, str]], name: str = "qa.json") -> datasets.Dataset:
    columns = {
        "question": [pair[0] for pair in pairs],
        "answer": [pair[1] for pair in pairs],
        "where": [f"{name} row {number}" for number in range(1, len(pairs) + 1)],
    }
    return datasets.Dataset.from_dict(
        columns, features=datasets.Features(dict.fromkeys(columns, datasets.Value("string")))
    )


def dedupe(
    section: DedupeSection, rows: datasets.Dataset, test: datasets.Dataset | None = None
) -> tuple[datasets.Dataset, list[Rejection]]:
    kept, _, rejected, _ = stage.dedupe(section, rows, test)
    return kept, rejected


def kept(questions: list[str]) -> list[str]:
    return list(dedupe(ON, dataset([(question, "a") for question in questions]))[0]["question"])
