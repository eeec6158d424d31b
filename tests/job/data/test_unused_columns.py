"""Left out: a column that the question needs is refused, one that says nothing of it is not."""

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from columns import WORDS, other_questions, read, refused, same_question

from job.config.schema import DatasetSection
from job.data.load import load
from job.errors import DataError


@pytest.mark.parametrize(
    "name",
    ["input", "Input", "input_text", "context", "Context 1", "passage", "system", "system_prompt", "systemPrompt"]
    + ["document", "article", "history", "messages", "instruction", "choices", "table", "prompt"],
)
def test_a_column_by_whose_name_the_question_needs_it(tmp_path: Path, name: str) -> None:
    rows = other_questions()
    rows[3][name] = ["a", "b"] if name == "choices" else {"role": "user"} if name == "messages" else "Be short."
    message = refused(tmp_path, rows)
    assert f"{name!r} is filled in 1 of 10 rows, first in qa.jsonl line 4" in message
    listed = name if name != "Context 1" else '"Context 1"'
    assert message.endswith(f"dataset.ignore_columns: [{listed}]")
    (facts,) = read(tmp_path, rows, ignore_columns=(name,))
    assert facts.unused == [name]


@pytest.mark.parametrize("empty", ["", "  ", None, [], {}, "N/A", "<noinput>", "nan", {"text": []}, float("nan")])
@pytest.mark.parametrize("name", ["input", "context"])
def test_an_empty_column_may_be_left_out(tmp_path: Path, name: str, empty: Any) -> None:
    assert read(tmp_path, other_questions(**{name: empty}))[0].rows == 10


@pytest.mark.parametrize("name", ["word", "country", "Filiale", "産品", "title", "phrase to translate"])
def test_any_text_that_distinguishes_rows_with_the_same_question_is_needed(tmp_path: Path, name: str) -> None:
    rows = same_question(**{name: WORDS})
    message = refused(tmp_path, rows + [{**row, name: "x"} for row in other_questions()])
    assert f"{name!r} distinguishes 10 rows that ask the same and are answered differently" in message
    assert read(tmp_path, rows, ignore_columns=(name,))[0].rows == 10


PROSE = [f"I saw the {word} at the end of the street." for word in WORDS]


@pytest.mark.parametrize(
    "name",
    ["source", "source_text", "sourceDocument", "comment", "comments", "note", "user", "reply", "feedback", "file"]
    + ["target", "thought", "model", "author", "time", "sentence"],
)
def test_prose_that_many_answers_need_is_refused_whatever_the_column_is_called(tmp_path: Path, name: str) -> None:
    rows = same_question(**{name: PROSE})
    assert f"{name!r} distinguishes 10 rows" in refused(tmp_path, rows + other_questions())
    assert read(tmp_path, rows, ignore_columns=(name,))[0].unused == [name]


PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.mark.parametrize("empty", [None, {"bytes": None, "path": None}])
@pytest.mark.parametrize("type_", [PICTURE, pa.list_(PICTURE), pa.binary()], ids=str)
def test_a_picture_column_is_needed_only_if_it_has_pictures(tmp_path: Path, type_: pa.DataType, empty: Any) -> None:
    nothing = None if empty is None or type_ == pa.binary() else [empty] if type_ != PICTURE else empty
    picture = b"x" if type_ == pa.binary() else {"bytes": b"x", "path": None}
    file = tmp_path / "qa.parquet"
    for last, refuses in ((nothing, False), ([picture] if pa.types.is_list(type_) else picture, True)):
        table = pa.Table.from_pylist(other_questions())
        pq.write_table(table.append_column("image", pa.array([nothing] * 9 + [last], type_)), file, row_group_size=4)
        section = DatasetSection(file=str(file))
        if refuses:
            with pytest.raises(
                DataError, match="'image' holds pictures or sounds .*use rows that can be answered"
            ) as e:
                load(section, tmp_path, 42)
            assert "into the question" not in str(e.value)
        else:
            assert load(section, tmp_path, 42)[3][0].unused == ["image"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("numbers", [[n, 3, n * n] for n in range(10)]),
        ("concepts", [["dog", word] for word in WORDS]),
        ("keywords", [["dog", word] for word in WORDS]),
        ("facts", [[f"The {word} is old.", "It rains."] for word in WORDS]),
        ("record", [{"name": word, "height": 1.5, "sold": True} for word in WORDS]),
        ("points", [[[n, 0.5], [1, 2]] for n in range(10)]),
        ("input", [n / 3 for n in range(10)]),
        ("input", [{"celsius": n / 3} for n in range(10)]),
    ],
)
def test_lists_objects_and_numbers_are_looked_into(tmp_path: Path, name: str, values: list[Any]) -> None:
    assert f"{name!r} " in refused(tmp_path, same_question(**{name: values}))
    table = pa.Table.from_pylist(same_question(**{name: values}))
    pq.write_table(table, tmp_path / "qa.parquet")
    with pytest.raises(DataError, match=f"'{name}' "):
        load(DatasetSection(file=str(tmp_path / "qa.parquet")), tmp_path, 42)


@pytest.mark.parametrize(("name", "values"), [("celsius", [36.6, 38.5]), ("holiday", [True, False]), ("doses", [1, 2])])
def test_decimals_and_true_or_false_that_most_questions_need(tmp_path: Path, name: str, values: list[Any]) -> None:
    rows = [
        {"question": f"What about a {word}?", "answer": f"{word} at {value}.", name: value}
        for word in WORDS
        for value in values
    ]
    assert f"{name!r} distinguishes 20 rows" in refused(tmp_path, rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "qa.parquet")
    with pytest.raises(DataError, match=f"'{name}' distinguishes 20"):
        load(DatasetSection(file=str(tmp_path / "qa.parquet")), tmp_path, 42)


def several_answers(**beside: list[Any]) -> list[dict[str, Any]]:
    """A tenth of a hundred questions have two answers; the columns beside are filled in every row."""
    asked = [n if n < 90 else 90 + (n - 90) // 2 for n in range(110)]
    rows = [{"question": f"Is {n} a good age?", "answer": f"Answer {k}."} for k, n in enumerate(asked)]
    return [{**row, **{name: values[k % len(values)] for name, values in beside.items()}} for k, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("posted", [f"Oct {n}, 2014" for n in range(200)]),
        ("doctor", [f"Dr. {letter} Smith" for letter in "ABCDEFG"]),
        ("answered by", [f"Dr. Anna {word.title()} Smith, MD" for word in WORDS]),
        ("flags", ["BQZ", "BLQ", "BIPZ", "BC", "BNP"]),
        ("review", [f"I find that answer {n} is rather long." for n in range(200)]),
        ("comment", [f"I find that answer {n} is rather long." for n in range(200)]),
        ("helpful", [True, False, False]),
        ("similarity", [n / 7 for n in range(200)]),
        ("remarks", [[f"Remark {n}", n] for n in range(200)]),
        ("record", [{"n": n} for n in range(200)]),
    ],
)
def test_columns_that_describe_an_answer_may_be_left_out(
    tmp_path: Path, name: str, values: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    rows = several_answers(**{name: values})
    with caplog.at_level(logging.WARNING):
        assert read(tmp_path, rows)[0].unused == [name]
    if name not in ("flags", "helpful"):
        assert f"the column {name!r}, which is left out, distinguishes" in caplog.text


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("posted", [f"Oct {n % 30}, {1900 + n}" for n in range(200)]),
        ("comment", PROSE),
        ("source", [f"the old handbook of the {word} and its use" for word in WORDS]),
        ("vote", [n / 3 for n in range(200)]),
    ],
)
def test_columns_beside_two_answers_per_question_may_be_left_out(tmp_path: Path, name: str, values: list[Any]) -> None:
    rows = [
        {"question": f"What about {n // 2}?", "answer": f"Answer {n}.", name: values[n % len(values)]}
        for n in range(200)
    ]
    assert read(tmp_path, rows)[0].unused == [name]


def test_prose_that_recurs_beside_few_questions_is_needed(tmp_path: Path) -> None:
    rows = several_answers(style=["Answer like a pirate would.", "Answer like a teacher would."])
    assert "'style' distinguishes 20 rows" in refused(tmp_path, rows)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("id", [f"row-{n}" for n in range(10)]),
        ("question_id", WORDS),
        ("url", [f"https://a.org/{word}" for word in WORDS]),
        ("source", WORDS),
        ("split", ["train", "test"] * 5),
        ("score", list(range(10))),
        ("created_at", [f"2024-01-0{n}" for n in range(10)]),
        ("author", WORDS),
        ("model", ["a", "b"] * 5),
        ("length", [5] * 10),
        ("rejected", WORDS),
        ("explanation", [f"because of {word}" for word in WORDS]),
        ("answer_length", list(range(10))),
        ("short_answer", WORDS),
        ("__index_level_0__", list(range(10))),
        ("Unnamed: 0", list(range(10))),
        ("key", [f"k{n}" for n in range(10)]),
        ("number", list(range(10))),
        ("vote", [n / 3 for n in range(10)]),
        ("flag", [True, False] * 5),
        ("category", ["animals"] * 10),
        ("category", WORDS),
    ],
)
def test_columns_for_the_source_or_the_number_may_be_left_out(tmp_path: Path, name: str, values: list[Any]) -> None:
    assert read(tmp_path, same_question(**{name: values}))[0].unused == [name]


def test_a_class_is_needed_where_most_rows_show_it_and_else_a_line_of_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [
        {"question": f"What is a {word}?", "answer": f"{word} in {lang}", "lang": lang}
        for word in WORDS
        for lang in ("English", "German")
    ]
    assert "'lang' distinguishes 20 rows" in refused(tmp_path, pairs)
    with caplog.at_level(logging.WARNING):
        read(tmp_path, pairs[:4] + [{**row, "lang": "German"} for row in other_questions()[2:]] * 3)
    assert "the column 'lang', which is left out, distinguishes 4 rows" in caplog.text


def test_a_column_that_repeats_question_and_answer_may_be_left_out(tmp_path: Path) -> None:
    rows = other_questions()
    for row in rows:
        row["text"] = f"### Instruction:\n{row['question']}\n\n### Response:\n{row['answer']}"
        row["prompt"] = row["question"]
        row["messages"] = [{"role": "user", "content": row["question"]}, {"role": "bot", "content": row["answer"]}]
    assert read(tmp_path, rows)[0].unused == ["text", "prompt", "messages"]
    rows[0]["messages"] = [{"role": "user", "content": "Before that, something long was said. " * 30}]
    assert "'messages'" in refused(tmp_path, rows)
