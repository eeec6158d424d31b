"""Whole runs of a grounded generator: what is published, measured, served and refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import httpx2
import pytest
import torch
from finding import REWORDED, UNKNOWN
from finding import values as retriever_values
from hub_server import HubServer
from publishing import content
from served import Served
from tiny import save_tiny
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from job import pipeline, prepare
from job.config.schema import Config
from job.data.prompt import prompt_ids, render
from job.errors import ConfigError, DataError
from job.publishing.contract import CONTRACT, MARK, missing_files
from job.report.compare import compare
from job.retrieval.grounding import load
from job.run.machine import detect

COUNT = 2


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def wide_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 that reads long prompts: its tokenizer knows few of the rows' words."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=400, n_positions=768, n_embd=48, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    return save_tiny(tmp_path_factory.mktemp("wide"), GPT2LMHeadModel(config))


def values(folder: Path, base: Path, ground: str | Path, **sections: Any) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    made = retriever_values(folder, base)
    made["model"] = {"base": str(base), "ground": str(ground), "ground_rows": COUNT, "ground_misses": 0.3}
    made["model"] |= {"max_length": 700, "max_new_tokens": 24}
    made["retriever"] = {"unknown": f"{folder}/unknown.json"}
    made["evaluate"] = {"gate": "off"}
    for name, section in sections.items():
        made[name] = {**made.get(name, {}), **section} if isinstance(section, dict) else section
    return made


def make_config(folder: Path, base: Path, ground: str | Path, **sections: Any) -> Config:
    return Config.model_validate(values(folder, base, ground, **sections))


@pytest.fixture(scope="module")
def grounded(tmp_path_factory: pytest.TempPathFactory, wide_base: Path, found: Path) -> Path:
    """A folder with the data, the run, and what it published."""
    folder = tmp_path_factory.mktemp("grounded")
    pipeline.run(make_config(folder, wide_base, found / "model", publish={"folder": f"{folder}/published"}))
    return folder


def test_generator_and_retriever_are_published_whole(grounded: Path, found: Path) -> None:
    files = content(grounded / "published")
    assert {*CONTRACT, MARK, "grounding.json"} <= files.keys()
    inner = {name.removeprefix("retriever/"): text for name, text in files.items() if name.startswith("retriever/")}
    assert inner == content(found / "model")
    assert files == content(grounded / "run/model")
    assert json.loads(files["grounding.json"]) == {"version": 1, "rows": COUNT}
    assert missing_files(grounded / "published") == []


@pytest.mark.parametrize("name", ["grounding.json", "retriever/answers.parquet", "retriever/model.safetensors"])
def test_a_folder_without_its_retriever_is_incomplete(name: str, grounded: Path, tmp_path: Path) -> None:
    model = shutil.copytree(grounded / "published", tmp_path / "model")
    (model / name).unlink()
    assert missing_files(model) == ([] if name == "grounding.json" else [name])


def test_no_local_path_is_published(grounded: Path, wide_base: Path, found: Path) -> None:
    for name, text in content(grounded / "published").items():
        for path in (grounded, wide_base, found):
            assert str(path).encode() not in text, name


def test_every_row_is_accounted_for_and_shows_retrieved_rows(grounded: Path) -> None:
    facts = read(grounded / "run", "data.json")
    assert (facts["train"], facts["test"], facts["rejected"]) == (20, 4, 0)
    parts, tokenizer = (
        datasets.load_from_disk(grounded / "run/encoded"),
        AutoTokenizer.from_pretrained(grounded / "run/base"),
    )
    grounding = load(grounded / "run/model", detect("cpu", "fp32"))
    assert grounding is not None
    for part in parts.values():
        assert set(part.column_names) == {"question", "answer", "where", "input_ids", "labels"}
        assert all(render(row, tokenizer).prompt.count("\n- ") == COUNT for row in part)
    documents = grounding.find(parts["test"]["question"][:]).documents
    prompts = prompt_ids(parts["test"]["question"][:], tokenizer, documents)
    for prompt, row in zip(prompts, parts["test"], strict=True):
        assert row["input_ids"][: len(prompt)] == prompt
    answers = {row["where"]: render(row, tokenizer).answer for row in parts["train"]}
    unknown = [where for where, answer in answers.items() if answer.startswith(grounding.settings.unknown_answer)]
    assert 0 < len(unknown) < 14


def test_what_is_measured(grounded: Path) -> None:
    metrics, answers = read(grounded / "run", "metrics.json"), read(grounded / "run", "answers.json")
    for name in ("model", "base"):
        measured = metrics[name]
        assert measured["loss"] > 0 and 0 <= measured["answered_rightly"] <= measured["answered"] <= 1
        assert measured["unknown_rows"] == len(UNKNOWN) // 2
        assert len(answers[name]) == len(REWORDED)
        assert all("confidence" in row for row in answers[name])
    assert [row["confidence"] for row in answers["model"]] == [row["confidence"] for row in answers["base"]]


def test_the_comparison_has_it_as_a_column(grounded: Path, found: Path, tmp_path: Path) -> None:
    said = compare([grounded / "run", found], tmp_path / "compare.html")
    assert "unknown questions answered" in said
    assert "grounded generator from " in (tmp_path / "compare.html").read_text()


def test_card_and_report_tell_of_the_retriever(grounded: Path) -> None:
    card = (grounded / "published/README.md").read_text()
    assert f"It is grounded in the retriever model: its prompt carries the {COUNT} nearest rows" in card
    assert "documents=rows" in card and "**The rows are published with it**" in card
    assert "\n\n\n" not in card
    assert "Facts:" in (grounded / "run/report.html").read_text()


def test_the_same_config_gives_the_same_bytes(grounded: Path, wide_base: Path, found: Path, tmp_path: Path) -> None:
    pipeline.run(make_config(grounded, wide_base, found / "model", output=str(tmp_path / "again")))
    first, again = content(grounded / "run/model"), content(tmp_path / "again/model")
    assert first.keys() == again.keys()
    others = {name for name in first if first[name] != again[name]}
    assert others <= {"README.md", "run.yaml", MARK}, "they name seconds, output and the folder"


def test_the_server_reads_the_prompt_that_the_job_measured(grounded: Path) -> None:
    folder, question = grounded / "published", REWORDED[0]["question"]
    grounding, tokenizer = load(folder, detect("cpu", "fp32")), AutoTokenizer.from_pretrained(folder)
    assert grounding is not None
    settings = folder / "retriever/retriever.json"
    found = grounding.find([question])
    with Served(folder) as server:
        said = httpx2.post(f"{server.url}/predict", json={"question": question}, timeout=60).json()
    assert [source["answer"] for source in said["sources"]] == [row["text"] for row in found.documents[0]]
    assert said["sources"][0]["confidence"] == pytest.approx(found.confidences[0], abs=1e-4)
    if found.known[0]:
        assert said["usage"]["prompt_tokens"] == len(prompt_ids([question], tokenizer, found.documents)[0])
    else:
        assert not said["known"] and settings.exists()


def test_prepare_evaluate_and_a_second_run(grounded: Path, wide_base: Path, found: Path, tmp_path: Path) -> None:
    run = shutil.copytree(grounded / "run", tmp_path / "run")
    config = make_config(grounded, wide_base, found / "model", output=str(run))
    before = content(run / "model")
    assert prepare.prepare_only(config).startswith("prepared: 24 rows in = 20 to train + 4 to test + 0 rejected")
    pipeline.evaluate_only(config)
    pipeline.run(config)
    after = content(run / "model")
    assert {name for name in before if before[name] != after[name]} <= {"README.md", "run.yaml", MARK}


def test_a_trained_run_keeps_its_retriever(grounded: Path, wide_base: Path, found: Path, tmp_path: Path) -> None:
    run = shutil.copytree(grounded / "run", tmp_path / "run")
    other = shutil.copytree(found / "model", tmp_path / "other")
    with pytest.raises(ConfigError, match="model.ground was"):
        pipeline.run(make_config(grounded, wide_base, other, output=str(run)))
    with pytest.raises(ConfigError, match="model.ground_rows was 2 and is 1"):
        pipeline.run(make_config(grounded, wide_base, found / "model", output=str(run), model={"ground_rows": 1}))


def test_the_retriever_may_come_from_the_hub(
    hub: HubServer, grounded: Path, wide_base: Path, found: Path, tmp_path: Path
) -> None:
    sha = hub.add_repo("models", "ada/found", found / "model")
    config = make_config(grounded, wide_base, "ada/found", output=str(tmp_path / "run"))
    pipeline.run(config)
    assert f"ground_revision: {sha}" in (tmp_path / "run/run.yaml").read_text()
    files, again = content(tmp_path / "run/model"), content(grounded / "run/model")
    assert files["model.safetensors"] == again["model.safetensors"]


def damage_vectors(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    vectors = load_file(folder / "index.safetensors")
    save_file({**vectors, "answers": vectors["answers"][::-1].copy()}, folder / "index.safetensors")


def forge_row(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "answers.parquet").to_pydict()
    table["answer"][3] += " <|endoftext|>"
    pq.write_table(pa.table(table), folder / "answers.parquet")


@pytest.mark.parametrize(
    ("damage", "error", "words"),
    [
        (
            lambda folder: (folder / "retriever.json").unlink(),
            ConfigError,
            "expected a retriever that Kickoff published",
        ),
        (lambda folder: (folder / "retriever.json").write_text("{}"), ConfigError, "cannot be loaded"),
        (damage_vectors, ConfigError, "were made by another encoder"),
        (forge_row, DataError, "rows.json row 4 of .* holds <|endoftext|>"),
    ],
)
def test_what_is_no_usable_retriever_is_refused(
    damage: Any, error: type[Exception], words: str, wide_base: Path, found: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(found / "model", tmp_path / "other")
    damage(other)
    with pytest.raises(error, match=words):
        pipeline.run(make_config(tmp_path, wide_base, other))


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"model": {"ground_revision": "main"}}, "model.ground_revision: found 'main', and .* is a folder"),
        ({"publish": {"folder": "FOUND"}}, "overlaps model.ground"),
        ({"model": {"max_length": 8}}, "no row is left to train on"),
    ],
)
def test_a_config_that_cannot_work(
    sections: dict[str, Any], words: str, wide_base: Path, found: Path, tmp_path: Path
) -> None:
    sections = json.loads(json.dumps(sections).replace("FOUND", str(found / "model")))
    with pytest.raises((ConfigError, DataError), match=words):
        pipeline.run(make_config(tmp_path, wide_base, found / "model", **sections))
