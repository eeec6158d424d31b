"""The comparison of runs: what the page and the terminal say of real runs, and which runs are not compared."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from command_line import job

from job import pipeline
from job.config.read import load
from job.errors import ConfigError, Exit
from job.evaluation.answers import add_metrics, score
from job.report.compare import compare
from job.run import fact_files
from job.run.facts import Answer, Answers, BaseFacts, Metrics

EVIL = "<script>alert(1)</script>"
Change = Callable[[list[Answer]], list[Answer]]


@pytest.fixture(scope="module")
def longer(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the data of `finished`, trained longer."""
    folder = tmp_path_factory.mktemp("compare") / "longer"
    pipeline.run(load(finished / "run.yaml", [f"output={folder}", "train.epochs=4", "evaluate.gate=off"]))
    return folder


@pytest.fixture(scope="module")
def partial(longer: Path) -> Path:
    """The same again, with answers to half of the six test rows."""
    folder = longer.with_name("partial")
    pipeline.run(load(longer / "run.yaml", [f"output={folder}", "evaluate.generate_rows=3"]))
    return folder


def answering(run: Path, folder: Path, change: Change) -> Path:
    """A copy of a run whose tuned model has given other answers, or to other rows."""
    shutil.copytree(run, folder)
    answers, metrics = fact_files.read(folder, Answers), fact_files.read(folder, Metrics)
    assert answers is not None and metrics is not None and metrics.model is not None
    changed = change(answers.model)
    fact_files.write(folder, replace(answers, model=changed))
    fact_files.write(folder, replace(metrics, model=add_metrics(metrics.model, changed)))
    return folder


def edited(run: Path, folder: Path, name: str, change: Callable[[Any], object]) -> Path:
    """A copy of a run with one of its JSON files changed."""
    shutil.copytree(run, folder)
    content = json.loads((folder / name).read_text())
    change(content)
    (folder / name).write_text(json.dumps(content))
    return folder


def table(html: str, heading: str) -> list[list[str]]:
    """The rows of the table below a heading, as text; a line break is a blank."""
    body = html.split(f"<h2>{heading}</h2>")[1].split("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return [[unescape(re.sub(r"<.*?>", " ", cell)).strip() for cell in row] for row in cells]


def test_two_runs(finished: Path, longer: Path, tmp_path: Path) -> None:
    said = compare([finished, longer], tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    models = table(html, "Models")
    base = json.loads((finished / "base/base.json").read_text())
    name = Path(base["base"]).name
    assert [cell.split()[0] for cell in models[0][1:]] == [name, "run", "longer"], "the shared base once"
    assert models[0][2].split()[1:] == ["generator", "from", name]
    shown = {row[0]: [cell.split()[0] for cell in row[1:]] for row in models[1:]}
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (finished, longer)]
    measured = [metrics[0]["base"], *(of_run["model"] for of_run in metrics)]
    for key, title in (
        ("loss", "loss (lower is better)"),
        ("f1", "token F1 of the answers"),
        ("ended", "answers ended by themselves"),
    ):
        assert shown[title] == [f"{model[key]:.3f}" for model in measured]
    assert shown["parameters"] == [f"{base['parameters']:,}"] * 3
    assert shown["answers per second"] == [f"{6 / model['answer_seconds']:.1f}" for model in measured]
    assert shown["training"][0] == "none"
    low, high = measured[1]["intervals"]["loss"]
    assert models[1][2].endswith(f"{low:.3f} to {high:.3f}")
    pairs = table(html, "Which differences are real")
    assert [row[0] for row in pairs[1:]] == [f"run - {name}", f"longer - {name}", "longer - run"]
    assert len(table(html, "Answers side by side")) == 1 + 6
    assert "6 test questions, the same for every model. Every model answered all of them." in html
    assert not re.search(r"<(script|link|img)|(src|href)=|url\(", html), "one file, which fetches nothing"
    lines = said.splitlines()
    assert lines[0] == "6 test questions; answers are compared on the 6 that every model answered"
    for row in pairs[1:]:
        assert f"{row[0]}: token F1 of the answers {row[1]}; exact match {row[2]}" in lines
    assert lines[-1] == f"done: the page is {tmp_path / 'page.html'}"


def test_the_same_page_again(finished: Path, longer: Path, tmp_path: Path) -> None:
    said = [compare([finished, longer], tmp_path / "page.html").splitlines() for _ in range(2)]
    assert said[0] == said[1]
    first = (tmp_path / "page.html").read_bytes()
    compare([finished, longer], tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == first


def test_one_run_is_compared_with_its_base(finished: Path, tmp_path: Path) -> None:
    compare([finished], tmp_path / "page.html")
    assert len(table((tmp_path / "page.html").read_text(), "Which differences are real")) == 2


def test_what_was_answered_in_part_is_compared_on_the_questions_that_all_answered(
    longer: Path, partial: Path, tmp_path: Path
) -> None:
    said = compare([longer, partial], tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert (
        "6 test questions, the same for every model. Answers are compared on the 3 that every model answered." in html
    )
    assert "6 test questions; answers are compared on the 3 that every model answered" in said
    rows = {row[0]: row[1:] for row in table(html, "Models")[1:]}
    expected = json.loads((partial / "metrics.json").read_text())["model"]
    for key, title in (("f1", "token F1 of the answers"), ("exact_match", "exact match")):
        low, high = expected["intervals"][key]
        assert rows[title][1:] == [f"{expected[key]:.3f}  {low:.3f} to {high:.3f}"] * 2, "of equal models"
    assert len(table(html, "Answers side by side")) == 1 + 3


def test_answers_that_no_two_models_gave_to_one_question(longer: Path, partial: Path, tmp_path: Path) -> None:
    answered = {row["where"] for row in json.loads((partial / "answers.json").read_text())["model"]}
    other = answering(longer, tmp_path / "other", lambda rows: [row for row in rows if row.where not in answered])
    compare([partial, other], tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    assert "No question was answered by every model" in html
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["Models"]
    assert {row[0] for row in table(html, "Models")} >= {"loss (lower is better)"}
    assert "token F1" not in html.split("</table>")[0]


def test_marks_are_words(longer: Path, tmp_path: Path) -> None:
    given = ["{0}", "Well, {0}", "nothing of it", "{0}", "", EVIL]

    def change(rows: list[Answer]) -> list[Answer]:
        return [
            score(
                {"where": row.where, "question": row.question, "answer": row.expected}, text.format(row.expected), True
            )
            for row, text in zip(rows, given, strict=True)
        ]

    compare([answering(longer, tmp_path / "other", change)], tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text()
    marks = [row[2].split()[0] for row in table(html, "Answers side by side")[1:]]
    assert marks == ["right", "partly", "wrong", "right", "wrong", "wrong"]
    assert "no text" in html
    assert "<script" not in html


def test_a_model_that_is_better_by_far_is_really_better(longer: Path, tmp_path: Path) -> None:
    def right(rows: list[Answer]) -> list[Answer]:
        return [replace(row, answer=row.expected, f1=1.0) for row in rows]

    def wrong(rows: list[Answer]) -> list[Answer]:
        return [replace(row, answer="no", f1=0.0) for row in rows]

    good, bad = answering(longer, tmp_path / "good", right), answering(longer, tmp_path / "bad", wrong)
    same = answering(longer, tmp_path / "same", right)
    said = compare([bad, good, same], tmp_path / "page.html")
    assert "good - bad: token F1 of the answers +1.000 (1.000 to 1.000), real" in said
    assert "exact match +1.000 (1.000 to 1.000), real" in said
    assert "same - good: token F1 of the answers +0.000 (0.000 to 0.000), not clear" in said


def test_bases_that_gave_other_answers_are_two(longer: Path, finished: Path, tmp_path: Path) -> None:
    def change(answers: Any) -> None:
        answers["base"][0]["answer"] = "another"

    other = edited(longer, tmp_path / "other", "answers.json", change)
    compare([finished, other], tmp_path / "page.html")
    base = fact_files.read(finished, BaseFacts)
    assert base is not None
    name = Path(base.base).name
    heads = table((tmp_path / "page.html").read_text(), "Models")[0]
    assert [head.partition("  ")[0] for head in heads[1:]] == [name, f"{name} (of other)", "run", "other"]


def test_runs_of_one_name_are_told_apart(finished: Path, longer: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(longer, tmp_path / "run"))
    said = compare([finished, other], tmp_path / "page.html")
    assert f"{other} - {finished}: " in said


def test_what_an_earlier_version_did_not_record_is_not_known(finished: Path, tmp_path: Path) -> None:
    old = edited(finished, tmp_path / "old", "metrics.json", lambda metrics: metrics["model"].pop("answer_seconds"))
    shutil.rmtree(old / "model")
    compare([old], tmp_path / "page.html")
    rows = {row[0]: row[1:] for row in table((tmp_path / "page.html").read_text(), "Models")}
    assert rows["answers per second"][1] == rows["parameters"][1] == rows["size on disk"][1] == "not known"
    assert "not known" not in [row[0] for row in rows.values()]


def test_a_test_set_without_its_encoded_rows(longer: Path, partial: Path, finished: Path, tmp_path: Path) -> None:
    """All answers together are the test set; some of them are not."""
    for run in (longer, partial):
        shutil.copytree(run, tmp_path / run.name)
        shutil.rmtree(tmp_path / run.name / "encoded")
    compare([finished, tmp_path / "longer"], tmp_path / "page.html")
    with pytest.raises(ConfigError, match="measured on 6 test rows, and 3 are found"):
        compare([finished, tmp_path / "partial"], tmp_path / "page.html")


def test_another_test_set_ends_with_2_and_the_first_question_that_differs(finished: Path, tmp_path: Path) -> None:
    other, page = tmp_path / "other", tmp_path / "page.html"
    pipeline.run(load(finished / "run.yaml", [f"output={other}", "split.test_size=0.3", "evaluate.gate=off"]))
    few, many = (
        [row["question"] for row in json.loads((run / "answers.json").read_text())["model"]]
        for run in (finished, other)
    )
    assert set(few) < set(many)
    first = next(question for question in many if question not in few)
    for runs in ((finished, other), (other, finished)):
        ended = job("compare", *runs, "--out", page)
        assert ended.returncode == Exit.CONFIG
        assert ended.stdout.startswith("error (config, exit 2): the runs have different test sets: ")
        assert f"{first!r} is tested in {other} alone, not in {finished}; compare runs of the same" in ended.stdout
    assert not page.exists()


def test_another_expected_answer_is_another_test_set(finished: Path, tmp_path: Path) -> None:
    def change(answers: Any) -> None:
        for model in ("model", "base"):
            answers[model][1]["expected"] = "Something else."

    other = edited(finished, tmp_path / "other", "answers.json", change)
    shutil.rmtree(other / "encoded")
    row = json.loads((finished / "answers.json").read_text())["model"][1]
    with pytest.raises(ConfigError) as caught:
        compare([finished, other], tmp_path / "page.html")
    assert (
        f"to {row['question']!r}, {finished} expects {row['expected']!r} and {other} expects 'Something else.'"
        in str(caught.value)
    )


def test_runs_that_cannot_be_compared(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    empty = tmp_path / "empty"
    empty.mkdir()
    untested = edited(
        finished, tmp_path / "untested", "metrics.json", lambda metrics: metrics.update(model={}, base={})
    )
    strange = edited(finished, tmp_path / "strange", "answers.json", lambda rows: rows["model"][0].update(question="?"))
    damaged = edited(finished, tmp_path / "damaged", "metrics.json", lambda metrics: metrics.pop("gate"))
    weights = Path(shutil.copytree(finished, tmp_path / "weights"))
    (weights / "model/model.safetensors").write_bytes(b"no weights")
    for runs, page, says in (
        ([empty], out, f"{empty} holds no finished run"),
        ([finished, finished / "."], out, "is named twice"),
        ([untested], out, "has no test rows"),
        ([strange], out, "has an answer to '?', which is no test row"),
        ([damaged], out, "metrics.json is from another version of Kickoff, or damaged"),
        ([weights], out, "model.safetensors is damaged"),
        ([finished], tmp_path / "nowhere/page.html", "--out: found"),
        ([finished], tmp_path, "--out: found"),
    ):
        with pytest.raises(ConfigError, match=re.escape(says)):
            compare(runs, page)


def test_the_command_writes_the_page_where_it_is_called(finished: Path, longer: Path, tmp_path: Path) -> None:
    ended = job("compare", finished, longer, cwd=tmp_path)
    assert ended.returncode == Exit.DONE, ended.stdout + ended.stderr
    assert ended.stdout.endswith("done: the page is compare.html\n")
    assert (tmp_path / "compare.html").exists()
