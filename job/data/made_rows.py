"""Made rows: gives training rows in other wordings of the question, with the same answer.

They are made after the split, from the rows that are trained, so a test row never has one. A wording that asks what
another row asks, trained or tested, is left out: it would have that row's question and this row's answer. Case, blanks
and punctuation do not make questions different here.

It knows rows and the seed. How a question is reworded, `paraphrase` knows.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from job.data import rows as row_files
from job.data.paraphrase import wordings

MADE_FROM = "made_from"
"""Column of the training rows, where rows were made: the location of the row that each was made from; else null."""
_SCHEMA = pa.schema([(name, pa.string()) for name in ("question", "answer", "where", MADE_FROM)])
_NO_WORD = re.compile(r"[\W_]+")


def make(parts: datasets.DatasetDict, count: int, seed: int, path: Path) -> datasets.Dataset:
    """Make rows in other wordings.

    Args:
        parts: "train" and "test", {"question", "answer", "where"} and more.
        count: most rows to make from one training row; a question may have fewer other wordings, or none.
        seed: of the choice among the wordings.
        path: of the Arrow file to write.

    Returns:
        {"question", "answer", "where", "made_from"}, in the order of the training rows.
    """
    train, test = (parts[name].select_columns(["question", "answer", "where"]) for name in ("train", "test"))
    taken = {_key(question) for part in (train, test) for batch in _batches(part) for question in batch["question"]}

    def reworded() -> Iterator[dict[str, list[Any]]]:
        numbers = itertools.count()
        for batch in _batches(train):
            made = [
                {"question": text, "answer": answer, "where": f"{where}, wording {order}", MADE_FROM: where}
                for question, answer, where in zip(batch["question"], batch["answer"], batch["where"], strict=True)
                for order, text in enumerate(_choose(question, count, [seed, next(numbers)], taken), 1)
            ]
            yield {name: [row[name] for row in made] for name in _SCHEMA.names}

    return row_files.write(path, _SCHEMA, reworded())


def add(parts: datasets.DatasetDict, made: datasets.Dataset) -> datasets.DatasetDict:
    """Put made rows behind the training rows, whose column "made_from" is null."""
    nothing = pa.nulls(len(parts["train"]), pa.string())
    train = parts["train"].add_column(MADE_FROM, nothing)
    missing = [name for name in train.column_names if name not in made.column_names]
    for name in missing:
        made = made.add_column(name, pa.nulls(len(made), train.features.arrow_schema.field(name).type))
    made = made.select_columns(train.column_names).cast(train.features)
    return datasets.DatasetDict(train=datasets.concatenate_datasets([train, made]), test=parts["test"])


def find_originals(train: datasets.Dataset, made: datasets.Dataset) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Find the training row, by number, that each made row was made from."""
    numbers = {where: number for number, where in enumerate(train["where"][:])}
    return np.array([numbers[where] for where in made[MADE_FROM][:]], dtype=np.int64)


def originals(rows: datasets.Dataset) -> datasets.Dataset:
    """Leave out the made rows."""
    if MADE_FROM not in rows.column_names:
        return rows
    return rows.select(np.flatnonzero(pc.is_null(rows.with_format("arrow")[MADE_FROM][:])))


def _choose(question: str, count: int, seed: list[int], taken: set[int]) -> list[str]:
    """Choose other wordings at random, none of which is taken, and take them."""
    texts = wordings(question)
    chosen: list[str] = []
    for number in np.random.default_rng(seed).permutation(len(texts)).tolist():
        key = _key(texts[number])
        if len(chosen) < count and key not in taken:
            taken.add(key)
            chosen.append(texts[number])
    return chosen


def _key(question: str) -> int:
    """Hash what a question asks: its letters and digits, whatever their case."""
    return xxhash.xxh3_64_intdigest(_NO_WORD.sub("", question).casefold().encode("utf-8", "surrogatepass"))


def _batches(rows: datasets.Dataset) -> Iterator[dict[str, list[str]]]:
    return (rows[start : start + row_files.BATCH] for start in range(0, len(rows), row_files.BATCH))
