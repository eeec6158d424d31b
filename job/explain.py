"""Explain: what happened to one row on its way through the stages of a run.

It reads what the run left (rejected.jsonl, the encoded rows, the facts) and, where the row's file has not changed, the
row as it stood there. It runs no stage.
"""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from job.data import files
from job.data.rows import BATCH, IGNORED
from job.errors import ConfigError, DataError
from job.run import fact_files
from job.run.facts import Answers, DataFacts, Metrics, Source, TrainingFacts

_STAGES = ("load", "clean", "encode", "dedupe")
"""In their order, those that can reject a row."""


@dataclass(frozen=True)
class _Kept:
    """A row that was trained or tested."""

    part: str
    row: dict[str, Any]


def explain(run: Path, where: str) -> str:
    """The way of the row at `where`, such as "dataset.json row 12", a line for each stage.

    Raises:
        ConfigError: there is no prepared run in the folder, or another version of Kickoff wrote it.
        DataError: no row stood at this place.
    """
    try:
        data = fact_files.read(run, DataFacts)
    except fact_files.Damaged as error:
        raise ConfigError(f"{run / 'data.json'} {error}; prepare the data again") from None
    if data is None:
        raise ConfigError(f"{run} holds no prepared data; expected the folder that `output` names, after a run")
    rejection = next((row for row in _rejected(run) if row["where"] == where), None)
    kept = None if rejection is not None else _kept(run, where)
    if rejection is None and kept is None:
        raise DataError(f"no row stood at {where!r}{_nearest(run, where)}")
    lines = [where, *_of_load(data, where)]
    lines += _of_rejection(rejection) if rejection is not None else _of_kept(run, data, kept) if kept else []
    return "\n".join(lines)


def _rejected(run: Path) -> Iterator[dict[str, Any]]:
    with (run / "rejected.jsonl").open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def _kept(run: Path, where: str) -> _Kept | None:
    if not (run / "encoded").exists():
        raise ConfigError(f"{run} holds no encoded rows, so of kept rows nothing is known; call `run` or `check` first")
    for part, rows in datasets.load_from_disk(run / "encoded").items():
        for number, place in enumerate(_places(rows)):
            if place == where:
                return _Kept(str(part), rows[number])
    return None


def _places(rows: datasets.Dataset) -> Iterator[str]:
    column = rows.select_columns("where")
    for start in range(0, len(rows), BATCH):
        yield from column[start : start + BATCH]["where"]


def _nearest(run: Path, where: str) -> str:
    places = [row["where"] for row in _rejected(run)]
    if (run / "encoded").exists():
        for rows in datasets.load_from_disk(run / "encoded").values():
            places += _places(rows)
    near = difflib.get_close_matches(where, places[:100_000], n=1, cutoff=0.4)
    return f"; rows are named as the report names them, such as {near[0]!r}" if near else ""


def _of_load(data: DataFacts, where: str) -> list[str]:
    for source in data.sources:
        original = _original(source, where)
        if original is not None:
            columns = f"{source.question} -> {source.answer}"
            return [f"load      read from {source.source}, {columns}", *_texts("as it stood", *original)]
    return ["load      read (its file is not here any more, or holds other rows now)"]


def _original(source: Source, where: str) -> tuple[object, object] | None:
    """Question and answer as they stand in a local file that has not changed; None if they are not there."""
    path = Path(source.source)
    names = [name for name in (path.name, source.source) if where.startswith(f"{name} ")]
    if source.sha256 is None or not names or not path.exists() or files.fingerprint(path) != source.sha256:
        return None
    place = where.removeprefix(f"{names[0]} ")
    for chunk in files.read(path, lambda _: [source.question, source.answer]):
        if place in chunk.places:
            row = chunk.places.index(place)
            return chunk.columns[source.question][row], chunk.columns[source.answer][row]
    return None


def _texts(title: str, question: object, answer: object) -> list[str]:
    return [f"          {title}:", f"            question  {_line(question)}", f"            answer    {_line(answer)}"]


def _line(text: object) -> str:
    return json.dumps(text, ensure_ascii=False, default=str)


def _of_rejection(row: dict[str, Any]) -> list[str]:
    passed = _STAGES[: _STAGES.index(row["stage"])]
    lines = [f"{stage:10}passed" for stage in passed if stage != "load"]
    return [*lines, f"{row['stage']:10}rejected: {row['reason']}"]


def _of_kept(run: Path, data: DataFacts, kept: _Kept) -> list[str]:
    row = kept.row
    prompt = sum(label == IGNORED for label in row["labels"])
    tokens = len(row["input_ids"])
    repeats = next((cluster for cluster in data.clusters if cluster.survivor.where == row["where"]), None)
    dropped = f"; {repeats.size} that repeat it were dropped" if repeats else ""
    lines = [
        "clean     passed",
        *_texts("as it is used", row["question"], row["answer"]),
        f"encode    {tokens} tokens: {prompt} of the prompt, {tokens - prompt} of the answer, which are trained on",
        f"dedupe    kept{dropped}",
        f"split     to {kept.part}",
    ]
    return [*lines, *(_of_training(run) if kept.part == "train" else _of_test(run, row["where"]))]


def _of_training(run: Path) -> list[str]:
    training = fact_files.read(run, TrainingFacts)
    if training is None:
        return ["train     not trained yet"]
    return [f"train     once in every epoch; the training took {training.steps} steps"]


def _of_test(run: Path, where: str) -> list[str]:
    answers, metrics = fact_files.read(run, Answers), fact_files.read(run, Metrics)
    if answers is None or metrics is None:
        return ["evaluate  not measured yet"]
    for tuned, base in zip(answers.model, answers.base, strict=True):
        if tuned.where == where:
            return [
                f"evaluate  tuned {_line(tuned.answer)} (F1 {tuned.f1:.2f})",
                f"          base  {_line(base.answer)} (F1 {base.f1:.2f})",
            ]
    return ["evaluate  in the loss; not among the rows that were answered (evaluate.generate_rows)"]
