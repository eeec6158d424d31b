"""Load: each file format, how the columns are found, and that no row is lost without a reason."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from job.config.schema import DatasetSection
from job.data import files
from job.data.files import fingerprint
from job.data.load import COLUMN_PAIRS, load
from job.data.local_files import local_data
from job.errors import ConfigError, DataError, Exit
from job.run.facts import Source
from job.run.row_facts import Rejection

Loaded = tuple[list[dict[str, Any]], list[Rejection], Source]
PAIR = {"question": "What is DNS?", "answer": "A naming system."}


def put(folder: Path, name: str, content: str | bytes | list[Any]) -> Path:
    """Write a file: bytes as they are, text as UTF-8, rows as JSON."""
    content = json.dumps(content) if isinstance(content, list) else content
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read(path: Path, **section: Any) -> Loaded:
    with tempfile.TemporaryDirectory() as folder:
        rows, _, rejected, (facts,) = load(DatasetSection(file=str(path), **section), Path(folder), 42)
    assert len(rows) + len(rejected) == facts.rows
    # the rejected rows are written as JSON in UTF-8
    json.dumps(list(map(vars, rejected)), ensure_ascii=False).encode()
    return list(rows), rejected, facts


def refused(path: Path, **section: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(path, **section)
    assert caught.value.exit_code is Exit.DATA
    return str(caught.value).replace(f"{path.parent}/", "")


def pairs(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["question"], row["answer"]) for row in rows]


def test_json_array(tmp_path: Path) -> None:
    path = put(tmp_path, "qa.json", [PAIR, {"answer": " b ", "question": "a", "topic": "x"}])
    rows, rejected, facts = read(path)
    assert pairs(rows) == [("What is DNS?", "A naming system."), ("a", " b ")]
    assert [row["where"] for row in rows] == ["qa.json row 1", "qa.json row 2"]
    assert rejected == []
    assert facts == Source(str(path), "question", "answer", ["topic"], 2, fingerprint(path))


def test_jsonl_counts_lines_and_skips_blank_ones(tmp_path: Path) -> None:
    path = put(
        tmp_path, "qa.jsonl", '\ufeff{"question": "a\\u2028", "answer": "b"}\r\n\n{"question": "c", "answer": "d"}'
    )
    rows, _, _ = read(path)
    assert pairs(rows) == [("a\u2028", "b"), ("c", "d")]
    assert [row["where"] for row in rows] == ["qa.jsonl line 1", "qa.jsonl line 3"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv(tmp_path: Path, delimiter: str, mark: str) -> None:
    lines = ["id;question;answer", '1;a;"b\nc ""d"""', "2;NA;007", "3;null;1,5" if delimiter != "," else "3;null;1.5"]
    text = mark + "\r\n".join(line.replace(";", delimiter) for line in lines)
    rows, rejected, facts = read(put(tmp_path, "qa.csv", text))
    assert pairs(rows)[:2] == [("a", 'b\nc "d"'), ("NA", "007")]  # text stays text: neither missing nor a number
    assert rows[2]["question"] == "null"
    assert (rejected, facts.unused) == ([], ["id"])


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "qa.parquet"
    pd.DataFrame({"question": ["a", None], "answer": ["b", "c"], "n": [1, 2]}).to_parquet(path)
    rows, rejected, facts = read(path)
    assert pairs(rows) == [("a", "b")]
    assert rejected[0].reason == "the question is missing"
    assert (rejected[0].where, facts.unused) == ("qa.parquet row 2", ["n"])


def test_parquet_of_nullable_types_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "qa.parquet"
    questions = pd.array(["a", None, "c"], dtype="string")
    pd.DataFrame({"question": questions, "answer": [[1], [2], [3]]}).to_parquet(path)
    assert [row.reason.split(" is ")[0] for row in read(path)[1]] == ["the answer", "the question", "the answer"]
    shown = (None, [2])
    assert read(path)[1][1] == Rejection("qa.parquet row 2", "load", "the question is missing", shown=shown)


def test_parquet_of_numbered_columns(tmp_path: Path) -> None:
    path = tmp_path / "qa.parquet"
    pd.DataFrame({0: ["a"], 1: ["b"]}).to_parquet(path)
    assert pairs(read(path, question="0", answer="1")[0]) == [("a", "b")]


@pytest.mark.parametrize(("question", "answer"), COLUMN_PAIRS)
def test_column_pairs_are_found_whatever_their_case(tmp_path: Path, question: str, answer: str) -> None:
    row = {f" {answer.upper()}": "b", question.title(): "a", "other": "c"}
    rows, _, facts = read(put(tmp_path, "qa.json", [row]))
    assert pairs(rows) == [("a", "b")]
    assert (facts.question, facts.answer) == (question.title(), f" {answer.upper()}")


def test_columns_named_by_the_config(tmp_path: Path) -> None:
    path = put(tmp_path, "qa.json", [{**PAIR, "q": "a", "a": "b"}])
    rows, _, facts = read(path, question="q", answer="a")
    assert pairs(rows) == [("a", "b")]
    assert facts.unused == ["question", "answer"]


def test_named_column_that_is_missing(tmp_path: Path) -> None:
    path = put(tmp_path, "qa.json", [PAIR])
    with pytest.raises(ConfigError, match=r"dataset\.answer: .* has no column 'a'; it has 'question', 'answer'"):
        read(path, question="question", answer="a")


def test_columns_that_cannot_be_told(tmp_path: Path) -> None:
    message = refused(put(tmp_path, "qa.csv", "Frage,Antwort\na,b\n"))
    assert message.startswith("qa.csv: cannot tell the columns: found 'Frage', 'Antwort', expected question and answer")
    assert "dataset.question" in message
    assert "is the delimiter one of" in refused(put(tmp_path, "qa.csv", "question:answer\na:b\n"))
    assert "found no columns" in refused(put(tmp_path, "qa.json", ["a", "b"]))


@pytest.mark.parametrize("row", ["hello", 3, ["a", "b"], None, True])
@pytest.mark.parametrize("name", ["qa.json", "qa.jsonl"])
def test_row_that_is_no_object(tmp_path: Path, name: str, row: object) -> None:
    rows = [PAIR, row, PAIR]
    text = json.dumps(rows) if name.endswith("json") else "\n".join(map(json.dumps, rows))
    kept, rejected, _ = read(put(tmp_path, name, text))
    assert len(kept) == 2
    assert rejected[0].where in ("qa.json row 2", "qa.jsonl line 2")
    assert rejected[0].reason == "the question is missing"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (3, "is a number, not text"),
        (0.5, "is a number, not text"),
        (False, "is true or false, not text"),
        (["a"], "is a list, not text"),
        ({"a": [1]}, "is an object, not text"),
        (None, "is missing"),
        (float("nan"), "is missing"),
        ("", "is empty"),
        (" \n\t\u00a0", "is empty"),
        ("a\ud800", "holds half a surrogate pair, which is no character"),
        (["\udfff"], "is a list, not text"),
        ({"\ud800": "\ud800"}, "is an object, not text"),
    ],
)
@pytest.mark.parametrize("column", ["question", "answer"])
def test_value_that_is_no_text_is_set_aside(tmp_path: Path, column: str, value: object, reason: str) -> None:
    rows, rejected, _ = read(put(tmp_path, "qa.json", [PAIR, {**PAIR, column: value}, PAIR]))
    assert [row["where"] for row in rows] == ["qa.json row 1", "qa.json row 3"]
    assert len(rejected) == 1
    assert (rejected[0].where, rejected[0].stage) == ("qa.json row 2", "load")
    assert rejected[0].reason == f"the {column} {reason}"


def test_missing_key_is_set_aside_and_what_was_found_is_kept(tmp_path: Path) -> None:
    _, rejected, _ = read(put(tmp_path, "qa.json", [PAIR, {"answer": ["\ud800", 1.5, True]}]))
    shown = (None, ["\\ud800", 1.5, True])
    assert rejected == [Rejection("qa.json row 2", "load", "the question is missing", shown=shown)]


def test_whole_surrogate_pair_is_a_character(tmp_path: Path) -> None:
    rows, _, _ = read(put(tmp_path, "qa.json", r'[{"question": "\ud83d\ude00", "answer": "b"}]'))
    assert rows[0]["question"] == "😀"


def test_only_bad_rows_are_no_error_of_load(tmp_path: Path) -> None:
    rows, rejected, facts = read(put(tmp_path, "qa.json", [{"question": 1, "answer": 2}]))
    assert (rows, len(rejected), facts.rows) == ([], 1, 1)


@pytest.mark.parametrize("text", ["a\x00b", "👨\u200d👩\u200d👧", "ما هو التسلل؟", "מה זה?", "cafÃ©", "x" * 1_000_000])
@pytest.mark.parametrize("name", ["qa.json", "qa.jsonl", "qa.csv", "qa.parquet"])
def test_text_passes_unchanged(tmp_path: Path, name: str, text: str) -> None:
    frame = pd.DataFrame({"question": [text], "answer": [text]})
    path = tmp_path / name
    match path.suffix:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".parquet":
            frame.to_parquet(path)
        case suffix:
            frame.to_json(path, orient="records", lines=suffix == ".jsonl", force_ascii=False)
    assert pairs(read(path)[0]) == [(text, text)]


def test_truncated_json_names_line_and_column(tmp_path: Path) -> None:
    message = refused(put(tmp_path, "qa.json", '[{"question": "a",\n  "answer": "b'))
    assert message.startswith("qa.json:2:13: not valid JSON: Unterminated string")
    assert "was the file cut off?" in message
    message = refused(put(tmp_path, "qa.jsonl", json.dumps(PAIR) + '\n{"question": "a'))
    assert message.startswith("qa.jsonl:2: not valid JSON: Unterminated string")


@pytest.mark.parametrize(("text", "kind"), [('{"question": "a"}', "an object"), ("null", "null"), ('"a"', "text")])
def test_one_json_value_instead_of_an_array(tmp_path: Path, text: str, kind: str) -> None:
    assert refused(put(tmp_path, "qa.json", text)).startswith(f"qa.json: found {kind}, expected an array of rows")


def test_jsonl_named_json(tmp_path: Path) -> None:
    message = refused(put(tmp_path, "qa.json", f"{json.dumps(PAIR)}\n{json.dumps(PAIR)}\n"))
    assert message.startswith("qa.json:2:1: not valid JSON: Extra data")
    assert ".jsonl format: rename the file" in message


@pytest.mark.parametrize("name", ["qa.json", "qa.jsonl"])
@pytest.mark.parametrize("value", ["9" * 5000, "[" * 200_000])
def test_json_that_python_cannot_hold(tmp_path: Path, name: str, value: str) -> None:
    assert "nested too deeply, or a number" in refused(put(tmp_path, name, f'[{{"question": {value}'))


@pytest.mark.parametrize("text", ["", "\n", "question,answer\n", "\ufeff"])
@pytest.mark.parametrize("name", ["qa.csv", "qa.jsonl", "qa.json", "qa.parquet"])
def test_file_without_a_row(tmp_path: Path, name: str, text: str) -> None:
    message = refused(put(tmp_path, name, text))
    assert message.startswith(name)
    if name == "qa.csv":
        assert "holds no row" in message
    if name == "qa.json" and not text:
        assert "the file is empty" in message


def test_empty_array_and_header_alone(tmp_path: Path) -> None:
    assert "holds no row" in refused(put(tmp_path, "qa.json", []))
    assert "holds no row" in refused(put(tmp_path, "qa.csv", "question,answer"))


@pytest.mark.parametrize("name", ["folder", "folder.json"])
def test_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    assert refused(tmp_path / name).startswith(f"{name}: is a folder; expected a file: .json")


@pytest.mark.parametrize("name", ["no.json", "no.txt", "no/where.csv"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    assert "no such file" in refused(tmp_path / name)


@pytest.mark.parametrize(("name", "found"), [("qa.txt", ".txt"), ("qa", "no"), ("qa.txt.gz", ".txt")])
def test_unknown_extension(tmp_path: Path, name: str, found: str) -> None:
    message = refused(put(tmp_path, name, "x"))
    assert message.startswith(f"{name}: found {found} extension, expected one of .json, .jsonl, .csv, .parquet, which")


def test_extension_in_capitals(tmp_path: Path) -> None:
    assert len(read(put(tmp_path, "QA.JSON", [PAIR]))[0]) == 1


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
@pytest.mark.parametrize("name", ["qa.json", "qa.jsonl", "qa.csv"])
def test_not_utf_8(tmp_path: Path, name: str, encoding: str) -> None:
    text = "question,answer\ncafé,b\n" if name.endswith("csv") else '[{"question": "café", "answer": "b"}]'
    assert f"{name}: not UTF-8 text (byte " in refused(put(tmp_path, name, text.encode(encoding)))


def test_not_parquet(tmp_path: Path) -> None:
    assert refused(put(tmp_path, "qa.parquet", "xxx")).startswith("qa.parquet: not a Parquet file: ")


def test_csv_of_another_shape(tmp_path: Path) -> None:
    message = refused(put(tmp_path, "qa.csv", "question,answer\na,b\nc,d,e\n"))
    assert "qa.csv: not valid CSV with the delimiter ','" in message
    assert "line 3" in message
    assert "EOF inside string" in refused(put(tmp_path, "qa.csv", 'question,answer\na,"b\n'))


def test_csv_with_a_field_too_many_does_not_shift_the_columns(tmp_path: Path) -> None:
    message = refused(put(tmp_path, "qa.csv", "question,answer\nWho?,me, you\nWhat?,this, that\n"))
    assert "more fields than the first line; put quotes around" in message


def test_csv_with_a_field_too_few(tmp_path: Path) -> None:
    rows, rejected, _ = read(put(tmp_path, "qa.csv", "question,answer\na,b\nc\n"))
    assert (len(rows), rejected[0].where, rejected[0].shown) == (1, "qa.csv row 2", ("c", ""))


def test_test_file(tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    train = put(tmp_path, "qa.json", [PAIR])
    test = put(tmp_path, "held/qa.json", [{"question": "x", "answer": "y"}])
    section = DatasetSection(file=str(train), test=str(test))
    rows, apart, _, _ = load(section, tmp_path, 42)
    assert apart is not None
    assert apart["where"][0] != rows["where"][0]  # one name, two files: their places differ
    assert (apart["question"][0], rows["id"][0], apart["id"][0]) == ("x", 0, 1)
    named = {"dataset.file": train, "dataset.test": test}
    assert local_data(section) == {key: {str(path): fingerprint(path)} for key, path in named.items()}
    assert load(DatasetSection(file=str(train)), tmp_path, 42)[1] is None


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
@pytest.mark.parametrize("packed", ["gz", "zst"])
def test_packed_files(tmp_path: Path, kind: str, packed: str) -> None:
    frame = pd.DataFrame([PAIR, {"question": "é?", "answer": "ü"}])
    path = tmp_path / f"qa.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=kind == "jsonl", force_ascii=False)
    target = path.with_name(f"{path.name}.{packed}")
    with pa.CompressedOutputStream(pa.OSFile(str(target), "wb"), {"gz": "gzip", "zst": "zstd"}[packed]) as stream:
        stream.write(path.read_bytes())
    assert pairs(read(target)[0]) == [("What is DNS?", "A naming system."), ("é?", "ü")]


def test_globs_lists_and_groups(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = [{"question": f"{name}{n}?", "answer": "x", "topic": n % 3} for n in range(10)]
        put(tmp_path, f"{name}.json", rows)
    both = DatasetSection(file=[str(tmp_path / "*.json"), str(tmp_path / "a.json")])
    rows, _, rejected, facts = load(both, tmp_path, 42, "topic")
    assert ([fact.rows for fact in facts], len(rows), rejected) == ([10, 10], 20, [])
    assert rows["group"][:4] == ["0", "1", "2", "0"]
    with pytest.raises(DataError, match="no file matches"):
        load(DatasetSection(file=str(tmp_path / "*.csv")), tmp_path, 42)
    with pytest.raises(ConfigError, match=r"split\.group: .* has no column 'colour'"):
        load(both, tmp_path, 42, "colour")


def weighted(
    folder: Path, name: str, weight: float, seed: int = 1
) -> tuple[list[str], dict[str, Any], list[Rejection]]:
    section = DatasetSection.model_validate({"sources": [{"file": str(folder / name), "weight": weight}]})
    rows, _, rejected, facts = load(section, folder, seed)
    counted = {key: sum(getattr(fact, key) for fact in facts) for key in ("rows", "not_drawn")}
    assert rows["id"][:] == list(range(len(rows)))
    return rows["question"][:], counted, rejected


def test_a_weight_draws_its_share_by_seed_and_the_rest_is_not_rejected(tmp_path: Path) -> None:
    put(tmp_path, "a.jsonl", "\n".join(json.dumps({"question": f"{n}?", "answer": "x"}) for n in range(25_000)))
    questions, counted, rejected = weighted(tmp_path, "a.jsonl", 0.5)
    assert (len(questions), counted, rejected) == (12_500, {"rows": 12_500, "not_drawn": 12_500}, [])
    assert questions == sorted(questions, key=lambda question: int(question[:-1]))
    # from everywhere, and by no pattern: of even and odd rows, and of each tenth of the file, about the same share
    numbers = [int(question[:-1]) for question in questions]
    assert 6_000 < sum(number % 2 for number in numbers) < 6_500
    assert all(1_200 <= sum(n // 2500 == tenth for n in numbers) <= 1_300 for tenth in range(10))
    assert weighted(tmp_path, "a.jsonl", 0.5)[0] == questions
    assert weighted(tmp_path, "a.jsonl", 0.5, seed=2)[0] != questions


@pytest.mark.parametrize("chunk", [1, 7, 999, 1000, 1001, 100_000])
def test_what_is_drawn_does_not_depend_on_the_portions_that_are_read(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a.jsonl", "\n".join(json.dumps({"question": f"{n}?", "answer": "x"}) for n in range(2_500)))
    whole = weighted(tmp_path, "a.jsonl", 0.3)
    monkeypatch.setattr(files, "CHUNK_ROWS", chunk)
    assert weighted(tmp_path, "a.jsonl", 0.3) == whole
    assert whole[1] == {"rows": 750, "not_drawn": 1750}


def test_the_files_of_a_source_are_drawn_together(tmp_path: Path) -> None:
    for n in range(8):
        put(tmp_path, f"{n}.json", [{"question": f"{n}?", "answer": "x"}])
    assert weighted(tmp_path, "*.json", 0.25)[1] == {"rows": 2, "not_drawn": 6}
    with pytest.raises(ConfigError, match=r"weight 0.01 draws none of the 8 rows of .*0.json, .*; raise it"):
        weighted(tmp_path, "*.json", 0.01)


def test_the_rows_drawn_are_read_and_no_others_are_held(tmp_path: Path) -> None:
    """The rows not drawn are not written either: a share of a large data set needs the room of the share."""
    put(tmp_path, "a.jsonl", "\n".join(json.dumps({"question": f"{n}?", "answer": "x" * 999}) for n in range(5_000)))
    weighted(tmp_path, "a.jsonl", 0.01)
    assert (tmp_path / "loaded.arrow").stat().st_size < 200_000


def test_only_the_columns_that_are_needed_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "qa.parquet"
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = {"question": ["a?", "b?"], "answer": ["a", "b"], "topic": ["x", "y"], "url": ["u", "v"], "kin": [[1], [2]]}
    table = pa.table(rows).append_column("photo_of_it", pa.array([{"bytes": b"x"}, None], picture))
    pq.write_table(table, path)
    asked: list[list[str]] = []
    iterate = pq.ParquetFile.iter_batches

    def watched(file: pq.ParquetFile, size: int, columns: list[str]) -> Any:
        asked.append(columns)
        return iterate(file, size, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    kept, _, facts = read(path)
    assert pairs(kept) == [("a?", "a"), ("b?", "b")]
    assert asked == [["question", "answer", "topic", "kin"]]
    assert facts.unused == ["topic", "url", "kin", "photo_of_it"]


KEY = "AKIA" + "Q3EGZDX5TJN2MPLE"


@pytest.mark.parametrize(
    "row",
    [
        {"question": f"Is {KEY} mine?", "answer": None},
        {"question": f"Is {KEY} mine?", "answer": " "},
        {"question": 5, "answer": f"It is {KEY}"},
        {"question": "q", "answer": [f"It is {KEY}", {"deep": [KEY]}]},
        {"question": "q", "answer": {KEY: "b", "c": f"{KEY[:6]}\u200b{KEY[6:]}"}},
        {"question": f"{KEY} \ud800", "answer": "a"},
    ],
)
def test_a_secret_in_a_row_that_is_set_aside_is_blotted_out(tmp_path: Path, row: dict[str, Any]) -> None:
    _, rejected, _ = read(put(tmp_path, "qa.json", [PAIR, row]))
    told = json.dumps(list(map(vars, rejected)))
    assert "[secret]" in told
    assert KEY not in told and KEY[6:] not in told


def test_a_secret_in_a_first_line_that_is_no_header_is_not_told(tmp_path: Path) -> None:
    message = refused(put(tmp_path, "qa.csv", f"What is it?,It is {KEY}\nWho?,me\n"))
    assert "found 'What is it?', 'It is [secret]', expected question and answer" in message
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "qa.csv", question="q", answer="a")
    assert KEY not in str(caught.value)
    _, _, facts = read(put(tmp_path, "qb.csv", f"question,answer,{KEY}\na,b,c\n"))
    assert facts.unused == ["[secret]"]


def test_fingerprint_follows_the_bytes(tmp_path: Path) -> None:
    first, same, other = (put(tmp_path, name, text) for name, text in (("a", "x"), ("b", "x"), ("c", "y")))
    assert fingerprint(first) == fingerprint(same) != fingerprint(other)
    with pytest.raises(DataError, match="no such file"):
        fingerprint(tmp_path / "no")


@pytest.mark.parametrize("levels", [60, 300, 900])
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}")])
def test_a_deeply_nested_value_is_a_rejected_row_or_no_matter(
    tmp_path: Path, levels: int, suffix: str, opening: str, closing: str
) -> None:
    deep = opening * levels + '"x"' + closing * levels
    rows = [f'{{"question": {deep}, "answer": "a"}}', f'{{"question": "q?", "answer": "a", "extra": {deep}}}']
    text = f"[{', '.join(rows)}]" if suffix == "json" else "\n".join(rows)
    kept, rejected, _ = read(put(tmp_path, f"qa.{suffix}", text))
    assert pairs(kept) == [("q?", "a")]
    assert rejected[0].reason == f"the question is {'a list' if opening == '[' else 'an object'}, not text"
    assert "..." in json.dumps(rejected[0].shown)
