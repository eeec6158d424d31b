"""A single text through clean: what becomes of it, or why its row is rejected."""

from typing import Any

import datasets

from job.config.schema import CleanSection
from job.data.clean.clean import clean


def dataset(pairs: list[tuple[str, str]]) -> datasets.Dataset:
    questions, answers = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    where = [f"qa.json row {number}" for number in range(1, len(pairs) + 1)]
    columns = {"question": questions, "answer": answers, "where": where}
    return datasets.Dataset.from_dict(
        columns, features=datasets.Features(dict.fromkeys(columns, datasets.Value("string")))
    )


def reason(asked: str, answered: str, **switches: Any) -> Any:
    """Why the row is rejected; None if it is kept."""
    _, rejected = clean(CleanSection(**switches), dataset([(asked, answered)]))
    return rejected[0].reason if rejected else None


def answer(text: str, **switches: Any) -> str:
    rows, rejected = clean(CleanSection(**switches), dataset([("Zebra?", text)]))
    assert not rejected
    return str(rows[0]["answer"])


def question(text: str, **switches: Any) -> str:
    rows, rejected = clean(CleanSection(**switches), dataset([(text, "a")]))
    assert not rejected
    return str(rows[0]["question"])
