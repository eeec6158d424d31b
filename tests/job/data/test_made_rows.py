"""Rows made in other wordings: marked, counted, and never with a question that another row asks."""

import json
from pathlib import Path
from typing import Any

import pytest
from configs import MakeConfig
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

from job.config.schema import Config
from job.data import made_rows, stages
from job.errors import DataError
from job.run.facts import DataFacts
from job.run.folder import RunFolder

TRAINED = [
    {"question": "In which year was FIFA founded?", "answer": "FIFA was founded in 1904."},
    {"question": "What is a nutmeg?", "answer": "A ball between the legs."},
    {"question": "Kick off", "answer": "A start."},
    {"question": "How wide is a goal?", "answer": "7.32 meters."},
]
TESTED = [{"question": "what is the width of a goal", "answer": "Not this one."}]


def parts_of(trained: list[dict[str, str]], tested: list[dict[str, str]]) -> DatasetDict:
    rows = {"train": trained, "test": tested}
    return DatasetDict(
        {
            name: Dataset.from_list([{**row, "where": f"{name} row {at}"} for at, row in enumerate(part, 1)])
            for name, part in rows.items()
        }
    )


def made_of(count: int, tmp_path: Path, trained: list[dict[str, str]] = TRAINED, seed: int = 1) -> list[dict[str, str]]:
    return list(made_rows.make(parts_of(trained, TESTED), count, seed, tmp_path / f"made-{count}-{seed}.arrow"))


def test_a_made_row_has_its_mark_and_the_answer_of_its_row(tmp_path: Path) -> None:
    made = made_of(3, tmp_path)
    answers = {f"train row {number}": row["answer"] for number, row in enumerate(TRAINED, 1)}
    assert [row["made_from"] for row in made] == [f"train row {row}" for row in (1, 1, 1, 2, 2, 2, 4, 4, 4)]
    assert all(row["answer"] == answers[row["made_from"]] for row in made)
    assert made[1]["where"] == "train row 1, wording 2"
    assert len({row["where"] for row in made}) == len(made)


def test_no_wording_is_another_rows_question(tmp_path: Path) -> None:
    asked = {"question": "When was FIFA founded?", "answer": "Another answer."}
    made = [row["question"] for row in made_of(100, tmp_path, [*TRAINED, asked])]
    assert "When was FIFA founded?" not in made
    assert "What is the width of a goal?" not in made, "the test row asks it"
    keys = [made_rows._key(question) for question in made]
    assert len(set(keys)) == len(keys)


def test_the_seed_draws_the_wordings(tmp_path: Path) -> None:
    assert made_of(2, tmp_path) == made_of(2, tmp_path)
    assert made_of(2, tmp_path) != made_of(2, tmp_path, seed=2)


def prepared(config: Config, tokenizer: PreTrainedTokenizerBase | None) -> tuple[DatasetDict, dict[str, Any]]:
    folder = RunFolder(config)
    folder.path.mkdir(parents=True, exist_ok=True)
    parts = stages.prepare(config, folder, lambda: tokenizer)
    return parts, json.loads((folder / "data.json").read_text())


@pytest.mark.parametrize("encoded", [True, False])
def test_made_rows_are_counted_beside_all_others(
    encoded: bool, make_config: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    config = make_config(train={"paraphrases": 2})
    parts, data = prepared(config, tokenizer if encoded else None)
    assert data["rows"] == 40 == data["train"] + data["test"] + data["rejected"]
    assert data["made"] == len(parts["train"]) - data["train"] == 2 * data["train"]
    assert len(data["made_examples"]) == 20
    assert "made_from" not in parts["test"].column_names
    originals = made_rows.originals(parts["train"])
    assert len(originals) == data["train"]
    tested = {row["where"] for row in parts["test"]}
    assert not tested & {row["made_from"] for row in parts["train"]}


def test_questions_without_other_wordings_give_a_note(
    make_config: MakeConfig, data_file: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [{"question": f"Quanto fa {number} per due?", "answer": f"Fa {2 * number}."} for number in range(40)]
    data_file.write_text(json.dumps(rows))
    parts, data = prepared(make_config(train={"paraphrases": 2}), tokenizer)
    assert "made" not in data and len(parts["train"]) == data["train"]
    assert [note for note in data["notes"] if "nothing was made: the rules know English" in note]


def test_without_the_key_nothing_is_made(make_config: MakeConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    parts, data = prepared(make_config(), tokenizer)
    assert "made" not in data and "made_from" not in parts["train"].column_names
    assert made_rows.originals(parts["train"]) is parts["train"]


def test_a_wording_that_is_too_long_is_not_made(make_config: MakeConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    parts, plain = prepared(make_config(), tokenizer)
    longest = max(len(ids) for part in parts.values() for ids in part["input_ids"])
    config = make_config(
        train={"paraphrases": 100}, model={"max_length": longest}, output=make_config().output + "-short"
    )
    parts, data = prepared(config, tokenizer)
    assert data["train"] == plain["train"]
    assert max(len(ids) for ids in parts["train"]["input_ids"]) <= longest


def test_other_made_rows_are_prepared_anew_until_something_is_trained(
    make_config: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    for count in (1, 2):
        folder = RunFolder(config := make_config(train={"paraphrases": count}))
        with folder.lock():
            folder.open({})
            assert folder.read(DataFacts) is None
            stages.prepare(config, folder, lambda: tokenizer)
    assert folder.require(DataFacts).made == 2 * folder.require(DataFacts).train


def test_a_model_that_was_trained_on_other_made_rows_is_refused(
    make_config: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    def refuse(parts: DatasetDict) -> None:
        assert "made_from" in parts["train"].column_names
        raise DataError("other rows")

    config = make_config(train={"paraphrases": 1})
    RunFolder(config).path.mkdir()
    with pytest.raises(DataError, match="other rows"):
        stages.prepare(config, RunFolder(config), lambda: tokenizer, refuse)
