"""Draw: the share of a source's rows that its weight asks for."""

import json
from pathlib import Path
from typing import Any

import pytest
from loading import put

from job.config.schema import DatasetSection
from job.data import files
from job.data.load import load
from job.errors import ConfigError
from job.run.row_facts import Rejection


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
