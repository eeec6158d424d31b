"""The data's way through all its stages: nothing lost whatever the rows are, and the same outputs every time."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeConfig
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bench import prepare
from job import pipeline
from job.config import Config
from job.errors import DataError
from job.runfolder import RunFolder

# surrogates included: JSON can spell them
TEXT = st.one_of(st.text(max_size=30), st.sampled_from(["What is C?", "What is C++?", "what is c", "", " ", "\ud800"]))


def prepared(config: Config, tokenizer: PreTrainedTokenizerBase | None) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """data.json, and the lines of rejected.jsonl."""
    folder = RunFolder(config)
    folder.path.mkdir(parents=True, exist_ok=True)
    pipeline.prepare_rows(config, folder, lambda: tokenizer)
    # not splitlines, which also splits at the line separators that a text may hold
    lines = (folder / "rejected.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return folder.read("data.json"), [json.loads(line) for line in lines]


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
    parts = pipeline.prepare_rows(config, folder, lambda: None)
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


def test_a_mistake_in_the_data_costs_no_download(tmp_path: Path, make_config: MakeConfig) -> None:
    config = config_of(CONFLICT, tmp_path, make_config, dedupe={"conflicts": "fail"}, model={"base": "no/such"})
    with pytest.raises(DataError, match="ask the same"):
        pipeline.prepare(config, _claimed(config))


def _claimed(config: Config) -> RunFolder:
    folder = RunFolder(config)
    folder.path.mkdir(parents=True)
    return folder


def test_its_benchmark_runs(tmp_path: Path, fetched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (json.dumps({"question": f"What is {n} and {n}?", "answer": f"It is {2 * n}."}) for n in range(40))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(sys, "argv", ["prepare", "--dataset", str(tmp_path / "rows.jsonl"), "--rows", "100"])
    monkeypatch.setattr(prepare.model, "prepared", lambda: fetched)
    monkeypatch.setattr(prepare.results, "RESULTS", tmp_path)
    prepare.main()
    measured = json.loads((tmp_path / "prepare-100-rows.json").read_text())
    assert measured["counts"]["rows"] == 100
    assert set(measured["stages"]) == {"load", "clean", "dedupe", "split", "encode", "audit"}
