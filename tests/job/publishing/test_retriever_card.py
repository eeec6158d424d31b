"""The model card of a retriever, as a run renders it: each section with the run's own values, and valid for the Hub."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from finding import PAIRS, make_config
from hub_server import HubServer
from huggingface_hub import ModelCard

from job.publishing.card import ENCODER_PACKAGES, card


@pytest.fixture(scope="module")
def text(found: Path) -> str:
    return (found / "model/README.md").read_text()


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n\n")[1].split("\n## ")[0].strip()


def read(found: Path, name: str) -> Any:
    return json.loads((found / name).read_text())


def test_the_sections_and_their_order(text: str) -> None:
    titles = ["How to use it", "Metrics", "Data", "Training", "Limits", "Versions"]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == titles
    assert "\n\n\n" not in text
    for word in ("chat template", "nats", "answer tokens", "generat", "None", "{{", "{%"):
        assert word not in text.replace("never writes", "")


def test_its_head(text: str) -> None:
    head = text.split("\n## ")[0].split("---\n")[2]
    assert head.strip().startswith("# run\n\nThis finds the answer to a question among ")
    assert "It is tiny, fine-tuned on them." in head


def test_how_to_use_it(text: str, found: Path) -> None:
    told = section(text, "How to use it")
    threshold = read(found, "model/retriever.json")["threshold"]
    assert "python -m serve run\n" in told
    python = re.findall(r"```python\n(.*?)```", told, re.DOTALL)[0]
    compile(python, "card", "exec")
    assert f"is at least {threshold}.\n\n**The rows are published with it**" in told


def test_its_metrics(text: str, found: Path) -> None:
    told, metrics = section(text, "Metrics"), read(found, "metrics.json")
    assert "On 4 test questions that were not trained on and 3 questions that no row answers, beside" in told
    lines = [line for line in told.splitlines() if line.startswith("|")]
    assert lines[0] == "| metric | tuned | base | BM25 |"
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
    assert names == [
        "token F1 of the answers", "exact match", "own answer ranked first", "own answer among the first five",
        "mean reciprocal rank, to the tenth", "known told from unknown (AUROC)", "test questions answered",
        "test questions answered rightly", "unknown questions answered, wrongly",
    ]  # fmt: skip
    cells = dict(zip(names, (line.split(" | ")[1:] for line in lines[2:]), strict=True))
    for column, of in enumerate(("model", "base", "bm25")):
        shown = cells["own answer ranked first"][column].split(" ")[0]
        assert float(shown) == pytest.approx(metrics[of]["recall_at_1"], rel=1e-3)
    assert cells["test questions answered"][2].strip(" |") == "", "BM25 has no threshold"
    assert f"Gate before publishing: {metrics['gate']['rule']}." in told


def test_its_data_and_training(text: str, found: Path) -> None:
    data, training = section(text, "Data"), section(text, "Training")
    assert "| rows.json |  | " in data and "| test.json |  | " in data
    assert "24 rows in = 20 trained + 4 tested + 0 rejected." in data
    for line in (
        "| base model | tiny |", "| learning_rate | 0.001 |", "| word_dropout | 0.25 |", "| base_share | 0.5 |",
        "| max_wrong | 0.3 |", "| unknown_answer | I do not know. |", "| seed | 42 |", "| max_length | 32 |",
    ):  # fmt: skip
        assert line in training
    assert f"6 steps of 8 rows, fp32 on cpu, {read(found, 'training.json')['seconds']} s." in training
    assert "unknown.json" not in text, "a file of the user's"


def test_its_versions(text: str) -> None:
    assert section(text, "Versions").splitlines() == [f"- {name} {version(name)}" for name in ENCODER_PACKAGES]


def test_it_is_valid_for_the_hub(text: str, found: Path, hub: HubServer) -> None:
    read_card = ModelCard(text)
    read_card.validate()
    data = read_card.data
    assert (data.library_name, data.pipeline_tag) == ("sentence-transformers", "sentence-similarity")
    values = {result.metric_type: result.metric_value for result in data.eval_results or []}
    assert values["mrr_at_10"] == pytest.approx(read(found, "metrics.json")["model"]["mrr_at_10"], abs=1e-6)
    assert "loss" not in values


@pytest.mark.parametrize("samples", [False, True])
def test_rows_are_on_the_card_only_if_requested(samples: bool, found: Path) -> None:
    section = {"repo": "ada/finder", "branch": "next", "samples": samples}
    config = make_config(found.parent, found.parent / "gone", output=str(found), publish=section)
    text = card(found, config)
    assert ("## Sample answers" in text) == samples
    assert (PAIRS[0][1] in text) == samples
    assert 'name = "ada/finder"\nmodel = SentenceTransformer(name, revision="next")' in text
    assert "python -m serve ada/finder --revision next" in text
