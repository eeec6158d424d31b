"""Rows of a grounded generator: which retrieved rows they show, what they are trained to answer, and their tokens."""

from collections.abc import Sequence
from typing import Any

import pytest
from datasets import Dataset, DatasetDict
from tiny import ROWS
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from job.data import grounded
from job.data.library import Library
from job.data.rows import IGNORE_INDEX
from job.model.template import DOCUMENTS

UNKNOWN = "I do not know."
COUNT = 2
LONGEST = 400


def find(questions: Sequence[str], count: int) -> list[list[int]]:
    """The row of which a question has the most words comes first, and then the rows after it."""
    words = [set(row["question"].split()) for row in ROWS]
    best = [max(range(len(ROWS)), key=lambda row: len(words[row] & set(text.split()))) for text in questions]
    return [[(first + step) % len(ROWS) for step in range(count)] for first in best]


@pytest.fixture
def reader(tokenizer: PreTrainedTokenizerBase, fetched: Any) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(fetched)
    loaded.chat_template = DOCUMENTS.read_text() + str(loaded.chat_template)
    return loaded


def library(**fields: Any) -> Library:
    questions = [row["question"] if number else None for number, row in enumerate(ROWS)]
    answers = [row["answer"] for row in ROWS]
    values = {"questions": questions, "answers": answers, "answer_ids": list(range(len(ROWS))), "count": COUNT}
    return Library(**{**values, "unknown_answer": UNKNOWN, "find": find, **fields})


def encode(
    tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, str]], misses: float = 0.0, longest: int = LONGEST
) -> tuple[Dataset, Any]:
    columns = {key: [row[key] for row in rows] for key in ("question", "answer")}
    source = Dataset.from_dict({**columns, "where": [f"row {number}" for number in range(len(rows))]})
    return grounded.encode(source, tokenizer, longest, open_library=library, misses=misses, seed=7)


def texts(tokenizer: PreTrainedTokenizerBase, row: dict[str, Any], prefix: str = "") -> tuple[str, str]:
    """A row's prompt, and what it is trained to answer."""
    ids, labels = row[f"{prefix}input_ids"], row[f"{prefix}labels"]
    start = labels.count(IGNORE_INDEX)
    assert labels[start:] == ids[start:]
    return str(tokenizer.decode(ids[:start])), str(tokenizer.decode(ids[start:], skip_special_tokens=True))


def test_a_test_row_gets_what_the_server_would_give_it(reader: PreTrainedTokenizerBase) -> None:
    rows, rejected = encode(reader, ROWS[:6], misses=0.9)
    assert (len(rows), rejected) == (6, [])
    for number, row in enumerate(rows):
        prompt, answer = texts(reader, row)
        shown = "".join(
            f"- {ROWS[at]['question'] + ' ' if at else ''}{ROWS[at]['answer']}\n" for at in (number, number + 1)
        )
        assert prompt == f"Question:\nFacts:\n{shown}\nQuestion: {ROWS[number]['question']}\n\nAnswer:\n"
        assert answer == ROWS[number]["answer"]


def test_a_training_row_does_not_show_its_question_in_its_own_words(reader: PreTrainedTokenizerBase) -> None:
    rows, _ = encode(reader, ROWS)
    parts = grounded.choose(DatasetDict(train=rows, test=rows.select([])))
    firsts = shorter = shown = 0
    for row in parts["train"]:
        prompt, answer = texts(reader, row)
        assert answer == row["answer"] and f"{row['answer']}\n" in prompt
        asked = prompt.split("\nQuestion: ")[1].split("\n")[0]
        assert set(asked.split()) <= set(row["question"].split()) and asked
        shorter += asked != row["question"]
        shown += asked == row["question"] and f"- {row['question']} " in prompt
        firsts += prompt.split("\n")[2].endswith(row["answer"])
    assert len(ROWS) / 4 < shorter < len(ROWS) * 3 / 4
    assert shown < len(ROWS) / 8, "hardly ever is the question in the prompt in its own words"
    assert len(ROWS) / 2 < firsts < len(ROWS), "its own row is not always the first one"


def test_a_near_miss_is_trained_not_to_know(reader: PreTrainedTokenizerBase) -> None:
    rows, _ = encode(reader, ROWS, misses=0.5)
    parts = grounded.choose(DatasetDict(train=rows, test=rows))
    missed = 0
    for row in parts["train"]:
        prompt, answer = texts(reader, row)
        has_own = f"{row['answer']}\n" in prompt
        assert answer == (row["answer"] if has_own else UNKNOWN)
        assert prompt.count("- ") == COUNT
        missed += not has_own
    assert len(ROWS) / 4 < missed < len(ROWS) * 3 / 4
    assert all(texts(reader, row)[1] == row["answer"] for row in parts["test"]), "a test row is as the server answers"
    assert parts["train"].column_names == parts["test"].column_names


def test_an_answer_that_is_no_row_keeps_what_is_found(reader: PreTrainedTokenizerBase) -> None:
    rows, _ = encode(reader, [{"question": "What is 2 plus 2?", "answer": "In words: four."}] * 20, misses=0.9)
    assert {texts(reader, row, grounded.EXERCISE)[1] for row in rows} == {"In words: four."}


def test_the_draw_depends_on_the_seed_alone(reader: PreTrainedTokenizerBase) -> None:
    first, again = (encode(reader, ROWS, misses=0.3)[0][:] for _ in range(2))
    assert first == again


def test_a_row_that_is_too_long_with_its_rows_is_rejected(reader: PreTrainedTokenizerBase) -> None:
    lengths = [max(len(row["input_ids"]), len(row[f"{grounded.EXERCISE}input_ids"])) for row in encode(reader, ROWS)[0]]
    longest = sorted(lengths)[len(lengths) // 2]
    kept, rejected = encode(reader, ROWS, longest=longest)
    assert len(kept) == sum(length <= longest for length in lengths)
    assert len(kept) + len(rejected) == len(ROWS)
    assert {row.stage for row in rejected} == {"encode"}
    assert all(f"tokens with {COUNT} retrieved rows, at most {longest} fit" in row.reason for row in rejected)
