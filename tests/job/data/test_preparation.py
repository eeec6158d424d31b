"""The data's way through all its stages: nothing lost whatever the rows are, and the same outputs every time."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from configs import MakeConfig
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bench import prepare as benchmark
from job import prepare
from job.config.schema import Config
from job.data import stages
from job.errors import DataError
from job.run.folder import RunFolder

# surrogates included: JSON can spell them
TEXT = st.one_of(st.text(max_size=30), st.sampled_from(["What is C?", "What is C++?", "what is c", "", " ", "\ud800"]))


def prepared(config: Config, tokenizer: PreTrainedTokenizerBase | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """data.json, and the lines of rejected.jsonl."""
    folder = RunFolder(config)
    folder.path.mkdir(parents=True, exist_ok=True)
    stages.prepare(config, folder, lambda: tokenizer)
    # not splitlines, which also splits at the line separators that a text may hold
    lines = (folder / "rejected.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return json.loads((folder / "data.json").read_text()), [json.loads(line) for line in lines]


def config_of(rows: list[Any], folder: Path, make_config: MakeConfig, **sections: Any) -> Config:
    file = folder / "made.json"
    file.write_text(json.dumps(rows))
    return make_config(dataset={"file": str(file)}, output=str(folder / "run"), **sections)


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=st.lists(st.fixed_dictionaries({"question": TEXT, "answer": TEXT}), min_size=1, max_size=12))
def test_any_texts_go_through_and_none_is_lost(
    rows: list[dict[str, str]], make_config: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data, rejected = prepared(config_of(rows, Path(folder), make_config), tokenizer)
    assert data["rows"] == len(rows) == data["train"] + data["test"] + len(rejected)
    assert len({row["where"] for row in rejected}) == len(rejected)
    assert all(row["reason"] and row["stage"] for row in rejected)


CONFLICT = [
    {"question": "What is a bull?", "answer": "A male of the cattle family."},
    {"question": "What is the capital of France?", "answer": "Paris."},
    {"question": "what is a bull", "answer": "Someone who thinks that prices at the exchange are going to rise soon."},
    {"question": "How many legs does a spider have?", "answer": "Eight."},
]


@pytest.mark.parametrize(("conflicts", "left"), [("keep_first", [0]), ("keep_longest", [2]), ("keep_all", [0, 2])])
def test_one_question_with_two_answers(
    conflicts: str, left: list[int], tmp_path: Path, make_config: MakeConfig
) -> None:
    config = config_of(CONFLICT, tmp_path, make_config, dedupe={"conflicts": conflicts})
    data, rejected = prepared(config, None)
    assert {row["answer"] for row in rejected} == {CONFLICT[row]["answer"] for row in {0, 2} - set(left)}
    assert data["rows"] == 4 == data["train"] + data["test"] + len(rejected)
    (conflict,) = data["conflicts"]
    assert [answer["answer"] for answer in conflict["answers"]] == [CONFLICT[0]["answer"], CONFLICT[2]["answer"]]


@pytest.mark.parametrize("rows", [1, 4000], ids=["one process", "several processes"])
def test_an_answer_is_checked_again_without_its_end_token(
    rows: int, tmp_path: Path, make_config: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    answers = ["...", "?", "what is this", "a" * 30, "Buy now. " * 12, "no", "Call https://a.org", "It is a lamp."]
    made = [{"question": "What is this?", "answer": f"{answer}<|endoftext|>"} for answer in answers]
    made += [{"question": f"What is {n}?", "answer": f"The number {n}."} for n in range(rows)]
    clean = {"min_answer_characters": 3, "urls": "reject"}
    config = config_of(made, tmp_path, make_config, clean=clean, dedupe={"near": False})
    data, rejected = prepared(config, tokenizer)
    assert [row["stage"] for row in rejected] == ["clean"] * 7
    reasons = {row["where"].removeprefix("made.json "): row["reason"].split(":")[0] for row in rejected}
    assert sorted(reasons) == [f"row {n}" for n in range(1, 8)]
    assert reasons["row 1"] == reasons["row 2"].replace("too short", "a placeholder") == "the answer is a placeholder"
    assert reasons["row 3"] == "the answer only repeats the question"
    assert reasons["row 6"] == "the answer is too short"
    assert (data["mended"], data["train"] + data["test"]) == (1, 1 + rows)


@pytest.mark.parametrize(
    ("name", "values"),
    [("size", ["S", "M", "L", "XL"]), ("number", list(range(40))), ("model", ["Ford Ka", "Fiat Uno", "VW Golf"])],
)
def test_a_column_left_out_where_most_rows_would_be_dropped(
    name: str, values: list[Any], tmp_path: Path, make_config: MakeConfig
) -> None:
    """No rule of `leftout` sees these: what is left is that most of the rows contradict others."""
    rows = [
        {"question": "Which one fits?" if n % 2 else "What does it cost?", "answer": f"Number {n}.", "id": n}
        for n in range(40)
    ]
    beside = [{**row, name: values[n % len(values)]} for n, row in enumerate(rows)]
    with pytest.raises(
        DataError, match=rf"38 of 40 rows ask the same .*conflicts=keep_all, .*ignore_columns: \[{name}\]"
    ):
        prepared(config_of(beside, tmp_path, make_config), None)
    kept, _ = prepared(config_of(beside, tmp_path, make_config, dedupe={"conflicts": "keep_all", "near": False}), None)
    assert kept["train"] + kept["test"] == 40
    config = config_of(beside, tmp_path, make_config)
    section = config.dataset.model_copy(update={"ignore_columns": (name,)})
    assert len(prepared(config.model_copy(update={"dataset": section}), None)[1]) == 38
    assert len(prepared(config_of(rows, tmp_path, make_config), None)[1]) == 38  # an id tells nothing
    few = [{**row, "question": row["question"] if n < 20 else f"Is {n} odd?"} for n, row in enumerate(beside)]
    assert prepared(config_of(few, tmp_path, make_config, dedupe={"near": False}), None)[0]["rejected"] == 18


def test_a_conflict_can_be_an_error(tmp_path: Path, make_config: MakeConfig) -> None:
    config = config_of(CONFLICT, tmp_path, make_config, dedupe={"conflicts": "fail"})
    with pytest.raises(DataError, match="row 1 and made.json row 3 ask the same"):
        prepared(config, None)


def test_a_conflict_shows_no_secret(tmp_path: Path, make_config: MakeConfig) -> None:
    """A row with a secret is rejected before its question is compared with others."""
    secret = "ghp_" + "a1B2" * 9
    rows = [{"question": f"Is {secret} my key?", "answer": answer} for answer in ("Yes, it is.", "No, it is not.")]
    config = config_of([*CONFLICT[1:2], *rows], tmp_path, make_config, dedupe={"conflicts": "fail"})
    _, rejected = prepared(config, None)
    assert [row["stage"] for row in rejected] == ["clean", "clean"]
    assert secret not in json.dumps(rejected)


def test_rows_that_are_kept_with_one_question_stay_on_one_side(tmp_path: Path, make_config: MakeConfig) -> None:
    rows = [{"question": f"What is a {word}?", "answer": f"{word} {sense}."} for word in "abcdefgh" for sense in "xyz"]
    config = config_of(rows, tmp_path, make_config, dedupe={"conflicts": "keep_all", "near": False})
    folder = RunFolder(config)
    folder.path.mkdir(parents=True)
    parts = stages.prepare(config, folder, lambda: None)
    assert len(parts["train"]) + len(parts["test"]) == len(rows)
    assert len(parts["test"])
    assert not set(parts["train"]["question"]) & set(parts["test"]["question"])


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, make_config: MakeConfig, fetched: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(fetched)
    rows = [*CONFLICT, *({"question": f"What is {n} and {n}?", "answer": f"It is {2 * n}."} for n in range(60)), {}]
    found = []
    for _ in range(2):
        config = config_of(rows, tmp_path, make_config)
        folder = RunFolder(config)
        prepared(config, tokenizer)
        files = [folder / "data.json", folder / "rejected.jsonl", *folder.path.glob("encoded/*/*.arrow")]
        assert len(files) == 4
        found.append({file.name + file.parent.name: file.read_bytes() for file in files})
        for file in files:
            file.unlink()
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"question": "What?", "context": "Some text.", "answer": "That."}], "a column that the question needs"),
        ([{"q": "What?", "a": "That."}], "cannot tell which columns to read"),
    ],
)
def test_a_mistake_in_the_data_costs_no_download(
    rows: list[Any], message: str, tmp_path: Path, make_config: MakeConfig
) -> None:
    config = config_of(rows, tmp_path, make_config, model={"base": "no/such"})
    with pytest.raises(DataError, match=message):
        prepare.prepare(config, _claimed(config))


def test_rows_that_are_too_long_go_before_repeats_are_looked_for_and_before_the_split(
    tmp_path: Path, make_config: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    long = " ".join(map(str, range(200)))
    rows = [{"question": f"What is {n}?", "answer": f"{n} is {long}" if n % 4 else f"{n} is {n}."} for n in range(160)]
    # the second asks what the first asked, which is too long to stay
    rows += [{"question": "What is a bull?", "answer": long}, {"question": "what is a bull", "answer": "An animal."}]
    data, rejected = prepared(config_of(rows, tmp_path, make_config, dedupe={"near": False}), tokenizer)
    assert {row["stage"] for row in rejected} == {"encode"}
    assert data["rejected_by_reason"] == {"encode: too long": 121}
    assert (data["train"], data["test"]) == (35, 6)
    assert set(data["lengths"]["tokens"]) == {str(n) for n in map(int, data["lengths"]["tokens"]) if n <= 64}


def test_columns_of_the_preparation_are_not_kept(
    tmp_path: Path, make_config: MakeConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    config = config_of([*CONFLICT, *CONFLICT], tmp_path, make_config)
    folder = _claimed(config)
    parts = stages.prepare(config, folder, lambda: tokenizer)
    assert parts["train"].column_names == ["question", "answer", "where", "input_ids", "labels"]


def test_an_end_token_after_an_answer_is_removed_and_counted(
    tmp_path: Path, make_config: MakeConfig, tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"question": f"What is {n}?", "answer": f"It is {n}.<|endoftext|>"} for n in range(20)]
    rows += [{"question": "What ends?", "answer": "The <|endoftext|> does."}]
    with caplog.at_level("INFO"):
        data, rejected = prepared(config_of(rows, tmp_path, make_config, dedupe={"near": False}), tokenizer)
    assert (data["mended"], data["train"] + data["test"]) == (20, 20)
    assert [row["answer"] for row in rejected] == ["The <|endoftext|> does."]
    assert "the end-of-sequence token after 20 answers was removed" in caplog.text
    assert all(row["answer"].count("<|endoftext|>") == 1 for row in data["rendered"])


def test_html_is_reported_in_the_log_and_in_data_json(
    tmp_path: Path, make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"question": f"<p>What is {n}?</p>", "answer": f"{n}."} for n in range(4)]
    with caplog.at_level("INFO"):
        data, _ = prepared(config_of(rows, tmp_path, make_config), None)
    (note,) = data["notes"]
    assert note.startswith("4 of 4 rows contain HTML")
    assert note in caplog.text


def test_a_secret_in_a_row_that_load_sets_aside_is_nowhere_in_the_run_folder(
    tmp_path: Path, make_config: MakeConfig
) -> None:
    key = "AKIA" + "Q3EGZDX5TJN2MPLE"
    rows = [*CONFLICT, {"question": f"Is {key} mine?"}, {"question": "q", "answer": [key, {"a": f"x {key}"}]}]
    config = config_of(rows, tmp_path, make_config, model={"base": "nobody/nothing"})
    prepare.prepare_only(config)
    written = [path for path in Path(config.output).rglob("*") if path.is_file()]
    assert {"rejected.jsonl", "data.json", "report.html"} <= {path.name for path in written}
    assert not [path for path in written if key in path.read_text(encoding="utf-8")]
    assert "[secret]" in (Path(config.output) / "report.html").read_text()


def test_data_of_which_nothing_is_left_is_an_error_of_prepare_too(tmp_path: Path, make_config: MakeConfig) -> None:
    rows: list[Any] = [*({"question": n, "answer": "a"} for n in range(5)), {"question": "q", "answer": "..."}]
    config = config_of(rows, tmp_path, make_config, model={"base": "nobody/nothing"})
    for _ in range(2):  # the second time from what the first has left
        with pytest.raises(DataError) as caught:
            prepare.prepare_only(config)
        assert str(caught.value).startswith(
            "no row is left to train on: 6 rows in, 6 rejected, 5 load: the question is a number, not text, 1 clean: "
        )
    assert (Path(config.output) / "report.html").exists()


def _claimed(config: Config) -> RunFolder:
    folder = RunFolder(config)
    folder.path.mkdir(parents=True)
    return folder


def test_its_benchmark_runs(tmp_path: Path, fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (json.dumps({"question": f"What is {n} and {n}?", "answer": f"It is {2 * n}."}) for n in range(40))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(sys, "argv", ["prepare", "--dataset", str(tmp_path / "rows.jsonl"), "--rows", "100"])
    monkeypatch.setattr(benchmark.model, "prepare", lambda: fetched)
    monkeypatch.setattr(benchmark.results, "RESULTS", tmp_path)
    benchmark.main()
    measured = json.loads((tmp_path / "prepare-100-rows.json").read_text())
    assert measured["counts"]["rows"] == 100
    assert set(measured["stages"]) == {"load", "clean", "dedupe", "split", "encode", "audit"}


def test_many_rows_of_a_train_and_a_test_file_stay_apart_in_every_stage(
    tmp_path: Path, make_config: MakeConfig, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 4,000 rows on several processes work at a stage, and hand each other files."""
    monkeypatch.setattr("job.data.rows.process_count", lambda rows: 2 if rows >= 4000 else None)
    for name in ("train", "test"):
        lines = (json.dumps({"question": f"{name} {n}?", "answer": f"{name} is {n}."}) for n in range(5000))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    config = make_config(
        dataset={"file": str(tmp_path / "train.jsonl"), "test": str(tmp_path / "test.jsonl")},
        dedupe={"exact": False, "near": False},
        output=str(tmp_path / "run"),
    )
    folder = RunFolder(config)
    folder.path.mkdir(parents=True)
    parts = stages.prepare(config, folder, lambda: tokenizer)
    for name, part in parts.items():
        assert part["where"][:] == [f"{name}.jsonl line {n}" for n in range(1, 5001)]
        assert part["question"][:] == [f"{name} {n}?" for n in range(5000)]
        assert part["answer"][:] == [f"{name} is {n}." for n in range(5000)]
        read = tokenizer.batch_decode(part["input_ids"][:])
        assert read == [f"Question:\n{name} {n}?\n\nAnswer:\n{name} is {n}.<|endoftext|>" for n in range(5000)]
