"""The report: one file with everything that a run found out, and rows and names in it as text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from configs import MakeConfig

from job import pipeline
from job.config.schema import Config
from job.report import pictures, report
from job.run import fact_files
from job.run.facts import Answers, Metrics


class Outside(HTMLParser):
    """Collects every address that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


EVIL = "<script>alert(1)</script>"


@pytest.fixture
def data() -> dict[str, Any]:
    """A data.json with something in every part of it."""
    first, second, third = ({"where": f"a.json row {n}", "question": f"Question {n} {EVIL}?"} for n in (1, 2, 3))
    return {
        "rows": 30,
        "train": 20,
        "test": 5,
        "rejected": 5,
        "rejected_by_stage": {"clean": 4, "dedupe": 1},
        "rejected_by_reason": {"clean: the answer is a placeholder": 4, "dedupe: asks the same as an earlier row": 1},
        "examples": {
            "clean: the answer is a placeholder": [
                {**first, "answer": EVIL, "reason": "the answer is a placeholder: '?'"}
            ],
            "dedupe: asks the same as an earlier row": [
                {**third, "answer": 5, "reason": "asks the same as a.json row 2"}
            ],
        },
        "clusters": [{"survivor": second, "victims": [{**third, "similarity": 0.934}], "size": 1}],
        "conflicts": [
            {
                "question": second["question"],
                "answers": [{"where": "a.json row 2", "answer": "yes"}, {"where": "a.json row 3", "answer": EVIL}],
                "kept": "a.json row 2",
            }
        ],
        "doubtful": [{"similarity": 0.871, "rows": [{**first, "answer": "yes"}, {**second, "answer": EVIL}]}],
        "closest": {"similarity": 0.612, "train": first, "test": second},
        "lengths": {
            "tokens": {str(n): 5 for n in range(8, 13)},
            "question_characters": {"10": 20, "20": 5},
            "answer_characters": {"0": 24, "5000": 1},
        },
        "sources": [
            {"source": f"{EVIL}.json", "rows": 30, "sha256": "ab" * 32, "question": "q", "answer": "a", "unused": []}
        ],
        "settings": {},
        "rendered": [{"where": "a.json row 4", "prompt": f"Ask {EVIL}\n", "answer": f"{EVIL}<|endoftext|>"}],
        "flagged": [{**first, "answer": EVIL, "reason": "the answer contains an offensive word: 'sh1t'"}],
    }


def rendered(folder: Path, data: dict[str, Any]) -> str:
    (folder / "data.json").write_text(json.dumps(data))
    report.report(folder, Config.model_validate({"dataset": {"file": "a.json"}}))
    return (folder / "report.html").read_text()


def test_data_alone_makes_a_report(tmp_path: Path, data: dict[str, Any]) -> None:
    html = rendered(tmp_path, data)
    headings = re.findall(r"<h[23]>(.*?)</h", html)
    assert headings == [
        "Data",
        "Rejected rows by stage and reason",
        "Flagged rows",
        "Repeated questions",
        "One question, different answers",
        "Nearly the same, and kept",
        "The most similar pair left",
        "Lengths",
        "As the model reads them",
        "Config",
    ]
    assert "30 rows in = 20 trained + 5 tested + 5 rejected" in html
    assert "1 of 4:" in html, "more were rejected than are shown"
    assert "dropped, 0.93" in html and "Similarity 0.61" in html
    assert html.count("<strong>kept</strong>") == 2
    assert not (tmp_path / "loss.png").exists()


def test_what_rows_hold_is_shown_as_text_and_nothing_is_fetched(tmp_path: Path, data: dict[str, Any]) -> None:
    html = rendered(tmp_path, data)
    parser = Outside()
    parser.feed(html)
    assert parser.addresses == []
    assert "<script" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") == json.dumps(data).count(EVIL) + 2, "two in summaries"


@pytest.fixture
def measured() -> dict[str, Any]:
    """A metrics.json with a metric of each kind, one without an interval, and one that is no number."""
    model = {
        "loss": 1.25,
        "perplexity": 3.5,
        "token_accuracy": 0.75,
        "rows": 5,
        "f1": 0.25,
        "exact_match": 0.0,
        "ended": 1.0,
        "answered_rows": 4,
        "intervals": {"loss": [1.0, 1.5], "exact_match": [0.0, 0.48991]},
        "interval_kinds": {"loss": "bootstrap", "exact_match": "Wilson"},
    }
    base = {**model, "loss": None, "perplexity": None, "intervals": {}}
    gate = {"metric": "loss", "passed": False, "rule": f"no {EVIL}"}
    return {"settings": {}, "model": model, "base": base, "gate": gate}


def test_every_interval_is_shown_with_its_kind(tmp_path: Path, data: dict[str, Any], measured: dict[str, Any]) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(measured))
    html = rendered(tmp_path, data)
    rows = re.findall(r'<tr><td>(.*?)</td><td class="number">(.*?)</td><td class="number">(.*?)</td></tr>', html)
    assert rows[:6] == [
        ("loss (lower is better)", "1.25 (1 to 1.5, bootstrap)", "no number"),
        ("perplexity", "3.5", "no number"),
        ("token accuracy", "0.75", "0.75"),
        ("token F1 of the answers", "0.25", "0.25"),
        ("exact match", "0 (0 to 0.4899, Wilson)", "0"),
        ("answers ended by themselves", "1", "1"),
    ]
    assert "On 5 test rows, 4 of them answered by generation." in html
    metrics = fact_files.load(tmp_path / "metrics.json", Metrics)
    lines = report.summary(metrics, Answers([], [])).splitlines()
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "loss (lower is better) 1.250 no number tuned, 95 %: 1.000 to 1.500, bootstrap",
        "perplexity 3.500 no number",
        "token accuracy 0.750 0.750",
        "token F1 of the answers 0.250 0.250",
        "exact match 0.000 0.000 tuned, 95 %: 0.000 to 0.490, Wilson",
        "answers ended by themselves 1.000 1.000",
    ]


def test_names_are_text_too(tmp_path: Path, data: dict[str, Any], measured: dict[str, Any]) -> None:
    """Of the run folder, the base, the repository, a reason, a rule, and what the config holds."""
    run = tmp_path / "<script>run"
    (run / "base").mkdir(parents=True)
    base = {"base": EVIL, "revision": EVIL, "parameters": 1, "context": 128, "chat_template": EVIL}
    answers = [{"where": EVIL, "question": EVIL, "expected": EVIL, "answer": EVIL, "f1": 0.5, "ended": True}]
    files = {
        "base/base": base,
        "metrics": measured,
        "answers": {"model": answers, "base": answers},
        "published": {"folder": EVIL, "repo": EVIL, "revision": EVIL},
        "phases": {EVIL: 1.0},
        "data": {**data, "rejected_by_reason": {EVIL: 5}, "rejected_by_stage": {EVIL: 5}, "examples": {}},
    }
    for name, value in files.items():
        (run / f"{name}.json").write_text(json.dumps(value))
    report.report(run, Config.model_validate({"dataset": {"file": EVIL, "question": EVIL, "answer": EVIL}}))
    html = (run / "report.html").read_text()
    assert "<script" not in html
    parser = Outside()
    parser.feed(html)
    assert parser.addresses == []


HISTORY = [{"step": 1, "train_loss": 2.0, "grad_norm": None}, {"step": 2, "test_loss": None}]
TRAINING = {
    **{"history": HISTORY, "steps": 2, "rows_per_step": 8, "forward_rows": 8, "processes": 1, "seconds": 1.0},
    **{"tokens_per_second": 5.0, "precision": "fp16", "device": "cuda", "skipped_steps": 0, "tokens": 5},
    **{"trained_tokens": 5, "answer_only_logits": True, "peak_gib": 1.0},
}


def test_a_curve_with_a_point_that_is_no_number(tmp_path: Path, data: dict[str, Any]) -> None:
    (tmp_path / "training.json").write_text(json.dumps(TRAINING))
    html = rendered(tmp_path, data)
    assert "data:image/png" in html
    assert "The model has" not in html, "an earlier version of Kickoff trained it"


def test_the_step_whose_weights_the_model_has(
    tmp_path: Path, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    png = pictures.png
    monkeypatch.setattr(pictures, "png", lambda figure: drawn.append(figure) or png(figure))
    kept = {"kept_step": 120, "kept_epoch": 3, "kept_loss": 0.98, "stopped_early": True}
    (tmp_path / "training.json").write_text(json.dumps({**TRAINING, **kept}))
    html = rendered(tmp_path, data)
    assert "The model has the weights of step 120 (epoch 3), test loss 0.98. The training ended early." in html
    (line,) = [line for line in drawn[0].axes[0].lines if line.get_label() == "kept: step 120"]
    assert set(line.get_xdata()) == {120}


def test_data_without_anything_to_show(tmp_path: Path, data: dict[str, Any]) -> None:
    empty: dict[str, Any] = {
        "clusters": [],
        "conflicts": [],
        "doubtful": [],
        "closest": None,
        "rendered": [],
        "flagged": [],
    }
    empty |= {"rejected_by_stage": {}, "rejected_by_reason": {}, "examples": {}, "lengths": {"tokens": {}}}
    html = rendered(tmp_path, {**data, **empty, "rows": 0, "train": 0, "test": 0, "rejected": 0})
    assert re.findall(r"<h[23]>(.*?)</h", html) == ["Data", "Config"]


def test_the_trained_part_is_told_apart_without_colour(tmp_path: Path, data: dict[str, Any]) -> None:
    html = rendered(tmp_path, data)
    shown = re.search(r'<pre class="rendered">(.*?)</pre>', html, re.DOTALL)
    assert shown is not None
    assert re.fullmatch(r'<span class="prompt">Ask .*\n</span><mark>.*&lt;\|endoftext\|&gt;</mark>', shown[1])
    assert re.search(r"mark \{[^}]*border: 1px", html)


def test_the_report_is_one_file_with_everything(make_config: MakeConfig, data_file: Path) -> None:
    rows = json.loads(data_file.read_text())
    rows += [{"question": "What is <script>alert(1)</script>?", "answer": ""}, rows[0]]
    rows += [{"question": f"What is <b>{n}</b>?", "answer": f"It is <i>{n}</i>."} for n in range(30)]
    data_file.write_text(json.dumps(rows))
    config = make_config()
    pipeline.run(config)
    run = Path(config.output)
    html = (run / "report.html").read_text()
    parser = Outside()
    parser.feed(html)
    assert parser.addresses
    assert all(address.startswith("data:image/png;base64,") for address in parser.addresses)
    for heading in ("Metrics", "Loss", "Data", "Rejected rows by stage and reason", "Sample answers", "Time"):
        assert f">{heading}</h" in html
    assert "load: the answer is empty" in html
    assert "dedupe: asks the same as an earlier row" in html
    assert not re.search(r"<script|<b>\d", html), "what comes from the data is escaped"
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    for phase in ("load", "base", "train", "evaluate", "report"):
        assert f"<td>{phase}</td>" in html
