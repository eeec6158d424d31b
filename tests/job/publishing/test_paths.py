"""No path of this machine is published: neither in the repository nor in its run.yaml."""

import re
from pathlib import Path

import pytest
from configs import MakeConfig
from huggingface_hub import ModelCard
from tiny import ROWS

from job import pipeline
from job.config import read as configs
from job.config.schema import Config
from job.publishing import contract, paths
from job.report.rendering import METRICS


def test_a_published_repository_has_no_local_path_and_no_row(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(publish={"folder": str(tmp_path / "there")})
    pipeline.run(config)
    there = tmp_path / "there"
    assert {path.name for path in there.iterdir()} >= set(contract.CONTRACT)
    assert not (there / "answers.json").exists()
    for path in there.iterdir():
        content = path.read_bytes()
        assert str(tmp_path).encode() not in content, path
        assert str(tmp_path.parent).encode() not in content, path
        for part in (config.model.base, *Path(config.model.base).parts[1:-1]):
            assert len(part) < 4 or part.encode() not in content, (path, part)
    text = (there / "README.md").read_text()
    assert not [row for row in ROWS if row["question"] in text or row["answer"] in text]
    of_generator = set(METRICS) & {"loss", "perplexity", "token_accuracy", "f1", "exact_match", "ended"}
    assert of_generator == {result.metric_type for result in ModelCard(text).data.eval_results or []}
    whole = Path(config.output) / "run.yaml"
    assert configs.load(whole) == config, "the run folder's own copy is whole"
    own = configs.load(there / "run.yaml")
    assert (own.dataset.file, own.publish.folder, own.output) == ("rows.json", "there", Path(config.output).name)
    assert own.train == config.train


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/ada/rows.json", "rows.json"),
        ("/home/ada/data/*.jsonl", "*.jsonl"),
        ("~/rows.json", "rows.json"),
        ("~ada/rows.json", "rows.json"),
        ("../../home/ada/rows.json", "rows.json"),
        ("data/../../ada/rows.json", "rows.json"),
        ("C:\\Users\\ada\\rows.json", "rows.json"),
        ("\\\\server\\ada\\rows.json", "rows.json"),
        ("/", "local"),
        ("data/rows.json", "data/rows.json"),
        ("rows.json", "rows.json"),
        ("owner/name", "owner/name"),
    ],
)
def test_run_yaml_shortens_paths_outside_the_working_folder(path: str, shown: str, tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "dataset": {"sources": [{"file": [path, "b.json"]}, {"name": "ada/rows"}, {"file": path}], "test": [path]},
            "model": {"base": path},
            "dedupe": {"semantic_model": path},
            "publish": {"folder": path},
            "clean": {"unwanted_words": ["/home/ada"]},
            "output": path,
        }
    )
    (tmp_path / "run.yaml").write_text(paths.run_yaml(config))
    found = configs.load(tmp_path / "run.yaml")
    files = [source.file for source in found.dataset.sources]
    assert files == [[shown, "b.json"], None, shown]
    assert (found.dataset.test, found.model.base, found.dedupe.semantic_model) == ([shown], shown, shown)
    assert (found.publish.folder, found.output) == (shown, shown)
    assert found.clean == config.clean
    assert (paths.run_yaml(config).startswith("# Paths")) == (path != shown)


def test_every_key_with_a_path_is_listed() -> None:
    """By its description, so that a key to come is not forgotten."""
    schema = Config.model_json_schema()
    holds = re.compile(r"\b(local|folder|files?|path)\b", re.IGNORECASE)
    found = {("output",)}
    for section, field in Config.model_fields.items():
        for key, inner in getattr(field.annotation, "model_fields", {}).items():
            if holds.search(inner.description or "") and "str" in str(inner.annotation):
                found.add((section, key))
    for key, inner in schema["$defs"]["SourceSection"]["properties"].items():
        if holds.search(inner["description"]):
            found.add(("dataset", "sources", key))
    beside = {("dataset", "name"), ("dataset", "sources", "name"), ("model", "gguf_file"), ("dataset", "sources")}
    assert found - beside == set(paths.KEYS)
