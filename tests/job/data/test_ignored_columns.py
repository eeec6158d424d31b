"""Columns that nothing reads, over several files and sources, and those that the config says to ignore."""

import json
from pathlib import Path

import pytest
from columns import WORDS, other_questions, read, refused, same_question

from job.config.schema import DatasetSection
from job.data.load import load
from job.errors import ConfigError, DataError


def test_the_config_may_name_the_pair_and_a_needed_column_is_refused_all_the_same(tmp_path: Path) -> None:
    rows = [{"instruction": "Sum up.", "input": word, "output": f"{word}!"} for word in WORDS]
    assert "'input' is filled in 10 of 10" in refused(tmp_path, rows, question="instruction", answer="output")
    assert "'instruction' is filled in 10" in refused(tmp_path, rows, question="input", answer="output")
    both = [{**row, "q": "Was?", "a": f"{word}."} for row, word in zip(other_questions(), WORDS, strict=True)]
    assert read(tmp_path, both, question="question", answer="answer")[0].unused == ["q", "a"]
    assert read(tmp_path, both, question="q", answer="a", ignore_columns=("question",))[0].unused[0] == "question"


def test_all_columns_are_named_at_once(tmp_path: Path) -> None:
    rows = same_question(system=["Be kind."] * 10, word=WORDS, id=list(range(10)))
    message = refused(tmp_path, rows)
    assert message.endswith("dataset.ignore_columns: [system, word]")
    assert message.count("; ") == 2


def test_different_files_of_a_data_set_count_together(tmp_path: Path) -> None:
    for row in same_question(word=WORDS):
        (tmp_path / f"{row['word']}.json").write_text(json.dumps([row]))
    with pytest.raises(DataError, match="'word' distinguishes 10 rows"):
        load(DatasetSection(file=str(tmp_path / "*.json")), tmp_path, 42)


def test_a_test_file_is_looked_at_as_well(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text(json.dumps(other_questions(context="Once upon a time.")))
    with pytest.raises(DataError, match=r"'context' is filled in 10 of 20 rows, first in test.json row 1"):
        read(tmp_path, other_questions(), test=str(tmp_path / "test.json"))


def test_sources_may_ignore_columns_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(other_questions(context="x y")))
    (tmp_path / "b.json").write_text(json.dumps(other_questions()))
    sources = [{"file": str(tmp_path / "a.json"), "ignore_columns": ["context"]}, {"file": str(tmp_path / "b.json")}]
    facts = load(DatasetSection.model_validate({"sources": sources}), tmp_path, 42)[3]
    assert [fact.unused for fact in facts] == [["context"], []]
    del sources[0]["ignore_columns"]
    with pytest.raises(DataError, match="'context'"):
        load(DatasetSection.model_validate({"sources": sources}), tmp_path, 42)
    assert load(DatasetSection.model_validate({"sources": sources, "ignore_columns": ["context"]}), tmp_path, 42)


def test_ignoring_a_column_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no column 'contxt'; did you mean 'context'\?"):
        read(tmp_path, other_questions(context="x y"), ignore_columns=("contxt",))


def test_openorca_is_refused_for_its_system_prompt(tmp_path: Path) -> None:
    rows = [{"id": f"niv.{n}", "system_prompt": "You help.", "question": f"{n}?", "response": "x"} for n in range(9)]
    assert "[system_prompt]" in refused(tmp_path, rows)
    (facts,) = read(tmp_path, rows, ignore_columns=("system_prompt",))
    assert (facts.question, facts.answer) == ("question", "response")
