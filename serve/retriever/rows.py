"""Reads the published answers (answers.parquet) and their vectors (index.safetensors), and refuses what does not fit.

It knows the two files. It does not know the encoder, searches or requests.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from serve.messages import one_line
from serve.retriever.files import AGAIN, ANSWERS, VECTORS

Array = np.ndarray[Any, np.dtype[Any]]
COLUMNS = {"id": "int64", "answer_id": "int64", "answer": "string", "question": "string", "source": "string"}
OPTIONAL = {"question"}
"""May hold nulls: the question of such a row is not indexed."""
TENSORS = {
    "answers": torch.float32,
    "rows": torch.float32,
    "questions": torch.float32,
    "question_rows": torch.int64,
}
LENGTH_TOLERANCE = 1e-3
"""How far a vector's length may be from 1; float32 stays within a thousandth of that."""


@dataclass(frozen=True)
class Rows:
    """The published rows and their vectors.

    Attributes:
        table: a row of answers.parquet for each row of the data, n in all.
        answers: float32 (n, width), the vector of each row's answer.
        rows: float32 (n, width), the vector of each row's question and answer as one text.
        questions: float32 (m, width), the vectors of the indexed questions.
        question_rows: int64 (m), the row of each of these.
    """

    table: pa.Table
    answers: torch.Tensor
    rows: torch.Tensor
    questions: torch.Tensor
    question_rows: torch.Tensor

    def by_answer(self) -> tuple[Array, Array]:
        """Number the distinct answers: the first row of each, and the number of each row's answer."""
        ids = self.table.column("answer_id").to_numpy()
        _, first, groups = np.unique(ids, return_index=True, return_inverse=True)
        return first, groups


def read(folder: Path) -> Rows:
    """Read and check the rows.

    Raises:
        ValueError: a file is damaged, or the two do not fit each other; the text says what was found, in one line.
    """
    table, tensors = _read_table(folder / ANSWERS), _read_tensors(folder / VECTORS)
    rows = Rows(table, **tensors)
    _check_shapes(rows)
    for name in ("answers", "rows", "questions"):
        _check_lengths(name, tensors[name])
    return rows


def _read_table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{ANSWERS} cannot be read ({one_line(error)}); {AGAIN}") from None
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise ValueError(f"{ANSWERS} lacks the column {', '.join(missing)}; {AGAIN}")
    for name, kind in COLUMNS.items():
        column = table.column(name)
        if str(column.type).removeprefix("large_") != kind:
            raise ValueError(f"{ANSWERS}: {name} is {column.type}, expected {kind}; {AGAIN}")
        if column.null_count and name not in OPTIONAL:
            raise ValueError(f"{ANSWERS}: {name} has {column.null_count} nulls, expected none; {AGAIN}")
    if not len(table):
        raise ValueError(f"{ANSWERS} has no rows; {AGAIN}")
    ids = table.column("id").to_numpy()
    wrong = np.flatnonzero(ids != np.arange(len(ids)))
    if len(wrong):
        raise ValueError(f"{ANSWERS}: row {wrong[0]} has the id {ids[wrong[0]]}, expected {wrong[0]}; {AGAIN}")
    return table.select(list(COLUMNS)).combine_chunks()


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{VECTORS} cannot be read ({one_line(error)}); {AGAIN}") from None
    if missing := [name for name in TENSORS if name not in tensors]:
        raise ValueError(f"{VECTORS} lacks {', '.join(missing)}; {AGAIN}")
    for name, dtype in TENSORS.items():
        if tensors[name].dtype != dtype:
            raise ValueError(f"{VECTORS}: {name} is {_name(tensors[name].dtype)}, expected {_name(dtype)}; {AGAIN}")
    return {name: tensors[name] for name in TENSORS}


def _check_shapes(rows: Rows) -> None:
    n, answers, questions = len(rows.table), tuple(rows.answers.shape), tuple(rows.questions.shape)
    if len(answers) != 2 or answers[0] != n:
        raise ValueError(f"{VECTORS}: answers is {answers}, expected a vector for each of the {n} rows; {AGAIN}")
    if tuple(rows.rows.shape) != answers:
        raise ValueError(f"{VECTORS}: rows is {tuple(rows.rows.shape)}, expected {answers}, as answers; {AGAIN}")
    if len(questions) != 2 or questions[1] != answers[1]:
        raise ValueError(f"{VECTORS}: questions is {questions}, expected vectors of {answers[1]} numbers; {AGAIN}")
    if tuple(rows.question_rows.shape) != questions[:1]:
        found = tuple(rows.question_rows.shape)
        raise ValueError(f"{VECTORS}: question_rows is {found}, expected {questions[:1]}, as questions; {AGAIN}")
    if len(rows.question_rows) == 0:
        return
    if not 0 <= int(rows.question_rows.min()) <= int(rows.question_rows.max()) < n:
        raise ValueError(f"{VECTORS}: question_rows names a row outside of the {n} rows; {AGAIN}")
    texts = rows.table.column("question").is_null().to_numpy()[rows.question_rows.numpy()]
    if texts.any():
        row = int(rows.question_rows[int(texts.argmax())])
        raise ValueError(f"{VECTORS} has a vector for the question of row {row}, which {ANSWERS} lacks; {AGAIN}")


def _check_lengths(name: str, vectors: torch.Tensor) -> None:
    lengths = vectors.norm(dim=1)
    if not torch.isfinite(lengths).all():
        row = int((~torch.isfinite(lengths)).nonzero()[0])
        raise ValueError(f"{VECTORS}: {name} {row} holds values that are not finite; {AGAIN}")
    wrong = ((lengths - 1).abs() > LENGTH_TOLERANCE).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"{VECTORS}: {name} {row} has the length {float(lengths[row]):.4f}, expected 1; {AGAIN}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
