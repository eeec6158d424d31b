"""What `python -m job explain` says of a row that was trained, one that was tested and one that was rejected."""

import json
import shutil
from pathlib import Path

import datasets
import pytest
from command_line import job

from job.errors import Exit


def places(run: Path, part: str) -> list[str]:
    return list(datasets.load_from_disk(run / "encoded")[part]["where"])


def told(run: Path, where: str) -> str:
    ended = job("explain", run, "--where", where)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_a_trained_row(finished: Path) -> None:
    where = places(finished, "train")[0]
    said = told(finished, where)
    number = int(where.split()[-1])
    row = json.loads((finished.parent / "rows.json").read_text())[number - 1]
    assert said.splitlines()[0] == where
    assert said.count(json.dumps(row["question"])) == 2, "as loaded, and as used"
    assert "split     to train\ntrain     once in every epoch" in said


def test_a_tested_row_has_both_models_answers(finished: Path) -> None:
    where = places(finished, "test")[0]
    answers = json.loads((finished / "answers.json").read_text())
    said = told(finished, where)
    for model in ("model", "base"):
        answer = next(row["answer"] for row in answers[model] if row["where"] == where)
        assert json.dumps(answer, ensure_ascii=False) in said
    assert "split     to test" in said


def test_a_rejected_row_has_its_stage_and_reason(finished: Path, tmp_path: Path) -> None:
    rows = [*json.loads((finished.parent / "rows.json").read_text()), {"question": "?", "answer": "Four."}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "config.yaml").write_text(f"dataset: {{file: {tmp_path}/rows.json}}\noutput: {tmp_path}/run\n")
    assert job("prepare", tmp_path / "config.yaml").returncode == 0
    said = told(tmp_path / "run", f"rows.json row {len(rows)}")
    assert 'question  "?"' in said
    assert "clean     rejected: the question is a placeholder" in said


def test_a_secret_is_not_shown(finished: Path, tmp_path: Path) -> None:
    token = "hf_" + "aBcDeFgHiJkLmNoPq" * 2
    rows = [*json.loads((finished.parent / "rows.json").read_text()), {"question": "My token?", "answer": token}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    (tmp_path / "config.yaml").write_text(f"dataset: {{file: {tmp_path}/rows.json}}\noutput: {tmp_path}/run\n")
    assert job("prepare", tmp_path / "config.yaml").returncode == 0
    said = told(tmp_path / "run", f"rows.json row {len(rows)}")
    assert token not in said
    assert 'answer    "[secret]"' in said
    assert "clean     rejected: the row contains what looks like a secret" in said


def test_a_row_of_the_hub_is_not_one_of_a_file(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    facts = json.loads((run / "data.json").read_text())
    where = places(run, "train")[0]
    del facts["sources"][0]["sha256"]
    facts["sources"][0] |= {"source": where.split(" ")[0], "revision": "0" * 40}
    (run / "data.json").write_text(json.dumps(facts))
    assert f"load      read from rows.json@{'0' * 40} on the Hub" in told(run, where)


def test_rows_of_a_changed_file_are_not_shown(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    facts = json.loads((run / "data.json").read_text())
    facts["sources"][0]["sha256"] = "0" * 64
    (run / "data.json").write_text(json.dumps(facts))
    said = told(run, places(run, "train")[0])
    assert "its file is gone, or has changed" in said
    assert "as loaded" not in said


@pytest.mark.parametrize(
    ("where", "says"),
    [("rows.json row 4711", "no row at 'rows.json row 4711'; rows are named"), ("", "no row at ''")],
)
def test_a_location_without_a_row_is_refused(where: str, says: str, finished: Path) -> None:
    ended = job("explain", finished, "--where", where)
    assert ended.returncode == Exit.DATA
    assert says in ended.stdout


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    ended = job("explain", tmp_path, "--where", "rows.json row 1")
    assert ended.returncode == Exit.CONFIG
    assert "holds no prepared data" in ended.stdout
