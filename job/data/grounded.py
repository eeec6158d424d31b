"""Grounded: turns rows into tokens for a generator whose prompt carries the rows that a retriever finds.

Until the split each row has two forms. As a test row it gets the rows that the server would give it. As a training row
it is an exercise. Users ask in other words than the data, and where the question stands in the prompt in its own words
a model learns to look for these, and to know nothing without them. So either its own row comes without its question, or
half of the question's words are left out; of the other rows, too, half come without their questions. Most rows have
their own row among those in the prompt, in a tenth of them at a place drawn at random, so that the model reads
instead of copying the first one. The others have near misses alone, and say that they do not know.

It knows tokens and the numbers of rows. It does not know how a row is found: a function does.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from job.data import encode as plain
from job.data.library import Library
from job.data.prompt import prompt_ids
from job.data.rows import BATCH, IGNORE_INDEX, transform
from job.run.row_facts import Rejection

UNTITLED = 0.5
"""Share of the rows in training prompts that come without their question."""
WORD_DROPOUT = 0.5
"""Share of the words that are left out of a training question whose own row comes with it."""
SHUFFLED = 0.1
"""Share of the training rows whose retrieved rows are in random order."""
EXERCISE = "exercise_"
"""Begins the names of the columns with a row's form for training."""
_IDS = pa.list_(pa.int32())
log = logging.getLogger(__name__)


def encode(
    rows: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    counts: Counter[str] | None = None,
    check: plain.Check = plain.accept,
    *,
    open_library: Callable[[], Library],
    misses: float,
    seed: int,
) -> tuple[datasets.Dataset, list[Rejection]]:
    """Tokenize rows with the rows that are retrieved for them.

    Args:
        rows: {"question", "answer", "where"}; other columns pass through.
        tokenizer: with a chat template that takes `documents`.
        max_length: longest row in tokens: prompt with retrieved rows, answer and end together.
        counts: as of `encode.encode`.
        check: as of `encode.encode`.
        open_library: opens the retriever.
        misses: share of the training rows that get near misses alone.
        seed: of the draw.

    Returns:
        The rows kept, with "input_ids" and "labels" as a test row, and "exercise_input_ids" and "exercise_labels" as a
        training row; and the rejected rows, also those that are too long with their retrieved rows.
    """
    kept, rejected = plain.encode(rows, tokenizer, max_length, counts, check)
    library = open_library()
    for name, values in _draw(kept, library, misses, seed).items():
        kept = kept.add_column(name, values)
    schema = rows.features.arrow_schema.remove_metadata()
    for name in ("input_ids", "labels", f"{EXERCISE}input_ids", f"{EXERCISE}labels"):
        schema = schema.append(pa.field(name, _IDS))
    schema = schema.append(pa.field("missed", pa.bool_())).append(pa.field("reason", pa.string()))
    encoded = transform(kept, partial(_encode_batch, tokenizer, max_length, library, schema), schema, "ground")
    is_rejected = pc.is_valid(encoded.with_format("arrow")["reason"][:]).to_numpy(zero_copy_only=False)
    columns = [name for name in ("id", "where", "reason") if name in schema.names]
    dropped = encoded.select_columns(columns).select(np.flatnonzero(is_rejected))
    rejected += [Rejection(**row, stage="encode") for row in dropped]
    return encoded.select(np.flatnonzero(~is_rejected)).remove_columns(["reason"]), rejected


def choose(parts: datasets.DatasetDict) -> datasets.DatasetDict:
    """Choose each row's form after the split.

    Args:
        parts: "train" and "test", as `encode` returns them.

    Returns:
        "train" and "test" with "input_ids" and "labels" alone.
    """
    train, test = parts["train"], parts["test"]
    names = [f"{EXERCISE}{name}" for name in ("input_ids", "labels")]
    forms = train.remove_columns(["input_ids", "labels"]).rename_columns(
        {name: name[len(EXERCISE) :] for name in names}
    )
    missed = sum(train["missed"][:])
    log.info(f"ground: {missed} of {len(train)} training rows have near misses alone, and say that they do not know")
    return datasets.DatasetDict(train=forms.remove_columns("missed"), test=test.remove_columns([*names, "missed"]))


def _draw(rows: datasets.Dataset, library: Library, misses: float, seed: int) -> dict[str, list[object]]:
    """Find the rows for each question, and draw its form for training; columns by name."""
    numbers = {answer: library.answer_ids[row] for row, answer in reversed(list(enumerate(library.answers)))}
    columns: dict[str, list[object]] = {name: [] for name in ("found", "asked", "shown", "titled", "missed")}
    absent = 0
    for start in range(0, len(rows), BATCH):
        batch = rows.select_columns(["question", "answer"])[start : start + BATCH]
        found = library.find(batch["question"], library.count + 1)
        for at, (question, answer, near) in enumerate(zip(batch["question"], batch["answer"], found, strict=True)):
            own, random = numbers.get(answer), np.random.default_rng([seed, start + at])
            shown, missed = _exercise(near, own, library, misses, random)
            titled = (random.random(len(shown)) >= UNTITLED).tolist()
            named = any(title and library.answer_ids[row] == own for row, title in zip(shown, titled, strict=True))
            absent += own is None
            columns["found"].append(near[: library.count])
            shortened = random.random() < 1 - UNTITLED if missed else named
            columns["asked"].append(_leave_out(question, random) if shortened else question)
            columns["shown"].append(shown)
            columns["titled"].append(titled)
            columns["missed"].append(missed)
    if absent:
        log.info(f"ground: {absent} of {len(rows)} answers are no row of the retriever; they get the rows it finds")
    return columns


def _leave_out(question: str, random: np.random.Generator) -> str:
    """Leave out some of a question's words, but not all."""
    words = question.split()
    kept = [word for word, drawn in zip(words, random.random(len(words)), strict=True) if drawn >= WORD_DROPOUT]
    return " ".join(kept) if kept else question


def _exercise(
    near: Sequence[int], own: int | None, library: Library, misses: float, random: np.random.Generator
) -> tuple[list[int], bool]:
    """Choose the rows that a training row shows, and whether they are near misses alone.

    Args:
        near: the nearest rows, one more than are shown.
        own: the number of the row's answer; None if the retriever does not have it, so that nobody knows which of its
            rows the answer was made of: they are shown as they are found.
        library: of the rows.
        misses: share of the rows that get near misses alone.
        random: of this row.
    """
    missed = bool(random.random() < misses) and own is not None
    others = [row for row in near if library.answer_ids[row] != own]
    if missed:
        return others[: library.count], True
    shown = list(near[: library.count])
    if own is not None and all(library.answer_ids[row] != own for row in shown):
        shown = [*shown[:-1], list(library.answer_ids).index(own)]
    if random.random() < SHUFFLED:
        shown = [shown[at] for at in random.permutation(len(shown))]
    return shown, False


def _encode_batch(
    tokenizer: PreTrainedTokenizerBase, max_length: int, library: Library, schema: pa.Schema, table: pa.Table
) -> pa.Table:
    answers = [[token for token in ids if token != IGNORE_INDEX] for ids in table["labels"].to_pylist()]
    unknown = [*tokenizer(library.unknown_answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    trained = [unknown if missed else ids for missed, ids in zip(table["missed"].to_pylist(), answers, strict=True)]
    forms = {"": ("question", "found", answers), EXERCISE: ("asked", "shown", trained)}
    columns: dict[str, list[list[int]]] = {}
    longest = [0] * len(answers)
    for prefix, (question, rows, wanted) in forms.items():
        titled = table["titled"].to_pylist() if prefix else repeat(None, len(answers))
        documents = [library.documents(*pair) for pair in zip(table[rows].to_pylist(), titled, strict=True)]
        prompts = prompt_ids(table[question].to_pylist(), tokenizer, documents)
        pairs = list(zip(prompts, wanted, strict=True))
        columns[f"{prefix}input_ids"] = [prompt + answer for prompt, answer in pairs]
        columns[f"{prefix}labels"] = [[IGNORE_INDEX] * len(prompt) + answer for prompt, answer in pairs]
        longest = [max(most, len(prompt) + len(answer)) for most, (prompt, answer) in zip(longest, pairs, strict=True)]
    reasons = [
        f"too long: {length} tokens with {library.count} retrieved rows, at most {max_length} fit (model.max_length)"
        if length > max_length
        else None
        for length in longest
    ]
    made = {name: pa.array(values, _IDS) for name, values in columns.items()} | {
        "reason": pa.array(reasons, pa.string())
    }
    return pa.table([made[name] if name in made else table[name] for name in schema.names], schema=schema)
