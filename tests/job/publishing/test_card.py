"""The card: whole, valid for the Hub, without local paths, and with rows only where they are asked for and as text."""

import ast
import json
import re
import shlex
from collections.abc import Callable
from html import unescape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from job.config.schema import Config
from job.publishing import markdown, paths
from job.publishing.card import PACKAGES, card

Make = Callable[..., tuple[Path, Config]]
WHOLE = Path(__file__).with_name("card.md").read_text()
EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a | b |\n| c",
    "`code` ``` ```sh\nrm\n```",
    "[click](javascript:alert(1)) ![x](http://evil.example/x.png) [x]: http://evil.example",
    "# Heading\n## Metrics\nunderlined\n===",
    "---\nlicense: mit\n---",
    "{{ title }} {% raw %} {# x #}",
    "<!-- gone",
    "&lt;b&gt; &amp; &#60;i&#62;",
    "*bold* _em_ ~~gone~~ $x^2$ \\(y\\) \\",
    "http://evil.example www.evil.example ada@evil.example <http://evil.example>",
    "- item\n1. item\n> quote\n+ item",
    "日本語 | ไทย | 👍",
]
COLUMNS = {"question": "question", "answer": "answer", "unused": []}


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """A run folder with the facts of a run, and its config."""

    def make(data: dict[str, Any] | None = None, base: dict[str, Any] | None = None, **sections: Any) -> Any:
        run = tmp_path / "home" / "ada" / "runs" / "soccer"
        values = {"dataset": {"file": "/home/ada/rows.json"}, "output": str(run), **sections}
        config = Config.model_validate(values)
        facts = {
            "rows": 30,
            "train": 20,
            "test": 5,
            "rejected": 5,
            "rejected_by_reason": {"encode: the answer holds <|endoftext|>": 5},
            "sources": [{"source": "/home/ada/data/rows.json", "rows": 30, "sha256": "ab" * 32, **COLUMNS}],
            "rejected_by_stage": {"encode": 5},
            **{"examples": {}, "lengths": {}, "settings": {}, "clusters": [], "conflicts": [], "closest": None},
        }
        measured = {
            "loss": 1.25,
            "perplexity": 3.49,
            "token_accuracy": 0.5,
            "rows": 5,
            "f1": 0.25,
            "exact_match": 0.0,
            "ended": 1.0,
            "answered_rows": 4,
            "intervals": {"loss": [1.0, 1.5], "exact_match": [0.0, 0.4899], "f1": [0.125, 0.375]},
            "interval_kinds": {"loss": "bootstrap", "exact_match": "Wilson", "f1": "bootstrap"},
        }
        rule = "loss must be below the base model's 2.5"
        metrics = {
            "settings": {},
            "model": measured,
            "base": {**measured, "loss": None, "intervals": {}},
            "gate": {"metric": "loss", "passed": True, "value": 1.25, "needed": 2.5, "rule": rule},
        }
        training = {
            **{"history": [], "skipped_steps": 0, "tokens": 1234, "tokens_per_second": 274.2, "peak_gib": 0.1},
            "answer_only_logits": True,
            "steps": 10,
            "rows_per_step": 8,
            "forward_rows": 8,
            "processes": 1,
            "trained_tokens": 1234,
            "precision": "bf16",
            "device": "cpu",
            "seconds": 4.5,
            **{"kept_step": 6, "kept_epoch": 2, "kept_loss": 1.25, "stopped_early": True},
        }
        answers = [
            {"where": "row 1", "question": text, "expected": text, "answer": text, "f1": 1.0, "ended": True}
            for text in EVIL
        ]
        fetched = {"base": "ada/tiny", "revision": "cd" * 20, "chat_template": "Kickoff's"}
        files = {
            "data": {**facts, **(data or {})},
            "training": training,
            "metrics": metrics,
            "answers": {"model": answers[:5], "base": answers[:5]},
            "base/base": {**fetched, "parameters": 1, "context": 128, **(base or {})},
        }
        (run / "base").mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (run / f"{name}.json").write_text(json.dumps(value))
        return run, config

    return make


def rendered(text: str) -> str:
    """The body as HTML, raw tags let through, as a lenient reader would."""
    body = text.split("\n---\n", 1)[1]
    return str(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(body))


def visible(html: str) -> str:
    """The text that a person sees."""
    return unescape(re.sub(r"<[^>]*>", "", html))


def test_the_whole_card(made: Make) -> None:
    """As it stands in card.md, but for what the config and the installed packages say."""
    run, config = made(publish={"repo": "ada/soccer", "license": "mit"})
    arguments = {
        key: value for key, value in config.train.model_dump(exclude={"search_minutes"}).items() if value is not None
    }
    expected = WHOLE.replace("TRAIN", "\n".join(f"| {key} | {value} |" for key, value in arguments.items()))
    expected = expected.replace("VERSIONS", "\n".join(f"- {name} {version(name)}" for name in PACKAGES))
    assert card(run, config) == expected.replace("HASH", "ab" * 32).replace("REVISION", "cd" * 20)


def test_the_card_is_valid_for_the_hub(made: Make, hub: HubServer) -> None:
    text = card(*made(publish={"repo": "ada/soccer", "license": "mit"}))
    found = ModelCard(text)
    found.validate()
    assert {result.metric_type: result.metric_value for result in found.data.eval_results or []} == {
        "loss": 1.25,
        "perplexity": 3.49,
        "token_accuracy": 0.5,
        "f1": 0.25,
        "exact_match": 0.0,
        "ended": 1.0,
    }
    assert str(found).strip() == text.strip()


@pytest.mark.parametrize("samples", [False, True])
def test_rows_are_on_the_card_only_if_requested(samples: bool, made: Make) -> None:
    text = card(*made(publish={"repo": "ada/soccer", "samples": samples}))
    assert ("## Sample answers" in text) == samples
    assert ("alert" in text) == samples
    assert ("Your question?" in text) != samples


def test_rows_are_shown_as_text(made: Make) -> None:
    run, config = made(publish={"repo": "ada/soccer", "samples": True})
    answers = json.loads((run / "answers.json").read_text())
    headings = re.findall(r"<h[1-6]>.*?</h[1-6]>", rendered(card(run, config)))
    for start in range(0, len(EVIL), 5):
        texts = EVIL[start : start + 5]
        rows = [{**answers["model"][0], "question": text, "expected": text, "answer": text} for text in texts]
        (run / "answers.json").write_text(json.dumps({"model": rows, "base": rows}))
        text = card(run, config)
        html = rendered(text)
        cells = re.findall(r"<td>(.*?)</td>", html.split("Sample answers")[1].split("<h2>")[0], re.DOTALL)
        assert [visible(cell) for cell in cells] == [" ".join(text.split()) for text in texts for _ in range(4)]
        assert not [cell for cell in cells if "<" in cell], "no tag, no link, no emphasis"
        assert re.findall(r"<h[1-6]>.*?</h[1-6]>", html) == headings
        assert not re.search(r"https?://(evil|www)|www\.", text.split("Sample answers")[1]), "no bare link"
        chat = ast.parse(re.findall(r"^chat = .*$", text, re.MULTILINE)[0]).body[0]
        assert isinstance(chat, ast.Assign)
        assert ast.literal_eval(chat.value) == [{"role": "user", "content": texts[0]}]


@pytest.mark.parametrize("name", [*(text.replace("/", "|") for text in EVIL), 'it\'s "here"; rm -rf $HOME'])
def test_names_are_shown_as_text(name: str, made: Make) -> None:
    """Of files, folders and reasons, wherever they stand."""
    source = {"source": f"/data/{name}", "rows": 30, "sha256": "ab" * 32, **COLUMNS}
    run, config = made(
        {"sources": [source], "rejected_by_reason": {f"clean: {name}": 5}},
        {"base": f"/models/{name}", "revision": None},
        publish={"folder": f"/there/{name}"},
        train={"wandb_project": name},
    )
    text = card(run, config)
    html = rendered(text)
    shown = " ".join(paths.name(name).split())
    assert visible(html.split("</h1>")[0].split("<h1>")[1]) == shown
    assert f"This is {shown}, fine-tuned on questions and answers ({shown})" in visible(html)
    assert f"(5 clean: {' '.join(name.split())})." in visible(html)
    code = re.sub(r"<pre>.*?</pre>", "", html, flags=re.DOTALL)
    tags = set(re.findall(r"<(/?[a-zA-Z!][^ >]*)", code.replace('<img src="loss.png"', "")))
    assert tags <= {sign + tag for tag in TAGS for sign in ("", "/")}
    python, shell = re.findall(r"```(?:python|sh)\n(.*?)\n```\n", text, re.DOTALL)
    (loaded,) = re.findall(r"^name = (.*?)  # the path of this folder$", python, re.MULTILINE)
    assert ast.literal_eval(loaded) == paths.name(name)
    assert shlex.split(shell.split("\n")[0])[:4] == ["python", "-m", "serve", shown]
    ModelCard(text).data.to_dict()


TAGS = {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td", "code", "ul", "li"}


def test_no_local_path(made: Make) -> None:
    sources = [
        {"source": "/home/ada/secret/train/qa.json", "rows": 10, "sha256": "ab" * 32, **COLUMNS},
        {"source": "C:\\Users\\ada\\secret\\qa.csv", "rows": 10, "sha256": "cd" * 32, **COLUMNS},
        {"source": "secret/qa.jsonl", "rows": 5, "sha256": "ef" * 32, **COLUMNS},
        {"source": "ada/hub-rows", "rows": 5, "revision": "ef" * 20, **COLUMNS},
    ]
    base = {"base": "/home/ada/secret/tiny", "revision": None}
    folder = {"folder": "/home/ada/secret/there"}
    text = card(*made({"sources": sources}, base, publish=folder))
    assert "secret" not in text and "home" not in text
    for name in ("qa.json", "qa.csv", "qa.jsonl", "ada/hub-rows", "tiny", "there"):
        assert name in text
    data = ModelCard(text).data.to_dict()
    assert data["datasets"] == ["ada/hub-rows"]
    assert "base_model" not in data
    assert data["model-index"][0]["results"][0]["dataset"]["name"] == "qa.json, qa.csv, qa.jsonl, hub-rows"


def test_the_usage_names_what_can_be_loaded(made: Make) -> None:
    text = card(*made(publish={"repo": "ada/soccer", "branch": "tuned"}))
    assert 'from_pretrained(name, revision="tuned")' in text
    assert "python -m serve ada/soccer --revision tuned" in text
    text = card(*made(publish={"folder": "out/my model"}))
    assert 'name = "my model"  # the path of this folder' in text
    assert "python -m serve 'my model'" in text


def test_nothing_measured(made: Make) -> None:
    run, config = made(publish={"repo": "ada/soccer"})
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**metrics, "model": {}, "base": {}}))
    text = card(run, config)
    assert "Nothing was measured: there was no test row." in text
    assert "model-index" not in ModelCard(text).data.to_dict()


def test_which_weights_it_has(made: Make) -> None:
    run, config = made(publish={"repo": "ada/soccer"}, train={"keep": "last"})
    training = json.loads((run / "training.json").read_text())
    facts = {key: value for key, value in training.items() if key not in ("kept_loss", "stopped_early")}
    (run / "training.json").write_text(json.dumps(facts))
    assert "4.5 s.\nThe model has the weights of step 6 (epoch 2).\nThe loss covers" in card(run, config)
    del facts["kept_step"], facts["kept_epoch"]
    (run / "training.json").write_text(json.dumps(facts))
    assert "The model has" not in card(run, config), "an earlier version of Kickoff trained it"


def test_metrics_of_an_older_run(made: Make) -> None:
    """Metrics that were measured before intervals had kinds are shown as they are."""
    run, config = made(publish={"repo": "ada/soccer"})
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["model"]["interval_kinds"], metrics["base"]["intervals"], metrics["base"]["interval_kinds"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert "| 1.25 (1 to 1.5, bootstrap) |" in card(run, config)


def test_markdown_leaves_plain_text_readable() -> None:
    plain = "What is offside? (Law 11), 4-3-3; it's 5% or 1.5."
    assert markdown.text(plain) == plain
