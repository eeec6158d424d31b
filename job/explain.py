"""Explain: tells what happened to one row in each stage of a run.

It reads what the run wrote (rejected.jsonl, the encoded rows, the facts) and, if the row's file has not changed, the
original row. It runs no stage.
"""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc

from job.data import files
from job.data.credentials import redact_value
from job.data.made_rows import MADE_FROM
from job.data.prompt import prompt_length
from job.data.rows import BATCH
from job.data.stages import GROUPS
from job.errors import ConfigError, DataError
from job.report.rendering import kept_weights
from job.run import fact_files
from job.run.facts import Answers, DataFacts, Metrics, RunRequest, Source, TrainingFacts
from job.run.search_facts import SearchFacts
from job.search.held_back import divide

_REJECTING_STAGES = ("load", "clean", "encode", "dedupe")
"""The stages that can reject a row, in their order."""


@dataclass(frozen=True)
class _Kept:
    """A row that is trained or tested."""

    part: str
    row: dict[str, Any]


def explain(run: Path, where: str) -> str:
    """Explain what happened to one row.

    Args:
        run: the run folder.
        where: the row's location, as the report names it, such as "dataset.json row 12".

    Returns:
        A line or more for each stage.

    Raises:
        ConfigError: the folder holds no prepared run, or another version of Kickoff wrote it.
        DataError: there is no row at this location.
    """
    try:
        data, request = fact_files.read(run, DataFacts), fact_files.read(run, RunRequest)
    except fact_files.Damaged as error:
        raise ConfigError(f"{run / 'data.json'} {error}; prepare the data again") from None
    if data is None:
        raise ConfigError(f"{run} holds no prepared data; expected the folder that `output` names, after a run")
    rejection = next((row for row in _read_rejected(run) if row["where"] == where), None)
    kept = None if rejection is not None else _find_kept(run, where)
    if rejection is None and kept is None:
        raise DataError(f"no row at {where!r}{_suggestion(run, where)}")
    made_from = kept.row.get(MADE_FROM) if kept is not None else None
    lines = [where, *_load_lines(data, made_from or where)]
    if rejection is not None:
        return "\n".join([*lines, *_rejection_lines(rejection)])
    is_retriever = request is not None and request.config["model"].get("kind") == "retriever"
    lines += _kept_lines(run, data, kept, is_retriever) if kept else []
    return "\n".join(lines)


def _read_rejected(run: Path) -> Iterator[dict[str, Any]]:
    with (run / "rejected.jsonl").open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def _find_kept(run: Path, where: str) -> _Kept | None:
    if not (run / "encoded").exists():
        raise ConfigError(f"{run} holds no encoded rows, so it explains rejected rows only; run first")
    for part, rows in datasets.load_from_disk(run / "encoded").items():
        for number, location in enumerate(_locations(rows)):
            if location == where:
                return _Kept(str(part), rows[number])
    return None


def _locations(rows: datasets.Dataset) -> Iterator[str]:
    column = rows.select_columns("where")
    for start in range(0, len(rows), BATCH):
        yield from column[start : start + BATCH]["where"]


def _suggestion(run: Path, where: str) -> str:
    locations = [row["where"] for row in _read_rejected(run)]
    if (run / "encoded").exists():
        for rows in datasets.load_from_disk(run / "encoded").values():
            locations += _locations(rows)
    matches = difflib.get_close_matches(where, locations[:100_000], n=1, cutoff=0.4)
    return f"; rows are named as the report names them, such as {matches[0]!r}" if matches else ""


def _load_lines(data: DataFacts, where: str) -> list[str]:
    for source in data.sources:
        original = _original(source, where)
        if original is not None:
            columns = f"{source.question} -> {source.answer}"
            return [f"load      read from {source.source}, {columns}", *_text_lines("as loaded", *original)]
        if source.revision is not None and where.startswith(f"{source.source} "):
            return [f"load      read from {source.source}@{source.revision} on the Hub"]
    return ["load      read (its file is gone, or has changed)"]


def _original(source: Source, where: str) -> tuple[object, object] | None:
    """The row's question and answer in its local file, without secrets; None if it has changed or lacks the row."""
    path = Path(source.source)
    names = [name for name in (path.name, source.source) if where.startswith(f"{name} ")]
    if source.sha256 is None or not names or not path.exists() or files.fingerprint(path) != source.sha256:
        return None
    location = where.removeprefix(f"{names[0]} ")
    for chunk in files.read(path, lambda _: [source.question, source.answer]):
        if location in chunk.locations:
            row = chunk.locations.index(location)
            pair = (chunk.columns.get(name) for name in (source.question, source.answer))
            question, answer = (None if values is None else redact_value(values[row]) for values in pair)
            return question, answer
    return None


def _text_lines(title: str, question: object, answer: object) -> list[str]:
    return [
        f"          {title}:",
        f"            question  {_quote(question)}",
        f"            answer    {_quote(answer)}",
    ]


def _quote(text: object) -> str:
    return json.dumps(text, ensure_ascii=False, default=str)


def _rejection_lines(row: dict[str, Any]) -> list[str]:
    earlier = _REJECTING_STAGES[: _REJECTING_STAGES.index(row["stage"])]
    lines = [f"{stage:10}passed" for stage in earlier if stage != "load"]
    return [*lines, f"{row['stage']:10}rejected: {row['reason']}"]


def _kept_lines(run: Path, data: DataFacts, kept: _Kept, is_retriever: bool) -> list[str]:
    row = kept.row
    prompt = prompt_length(row["labels"])
    tokens = len(row["input_ids"])
    asked, trained = ("question", "") if is_retriever else ("prompt", ", which are trained on")
    repeats = next((cluster for cluster in data.clusters if cluster.survivor.where == row["where"]), None)
    dropped = f"; {repeats.size} that repeat it were dropped" if repeats else ""
    lines = [
        "clean     passed",
        *_text_lines("as used", row["question"], row["answer"]),
        f"encode    {tokens} tokens: {prompt} of the {asked}, {tokens - prompt} of the answer{trained}",
        f"dedupe    kept{dropped}",
        f"split     to {kept.part}",
    ]
    if row.get(MADE_FROM) is not None:
        lines = [f"made      from {row[MADE_FROM]}, its question in other words", *lines[1:5]]
    if kept.part == "train":
        return [*lines, *_made_lines(run, row["where"]), *_search_lines(run, kept), *_training_lines(run)]
    return [*lines, *_test_lines(run, row["where"])]


def _made_lines(run: Path, where: str) -> list[str]:
    """Name the rows that were made from a training row."""
    rows = datasets.load_from_disk(run / "encoded")["train"]
    if MADE_FROM not in rows.column_names:
        return []
    sources = rows.with_format("arrow")[MADE_FROM][:]
    made = rows.select(np.flatnonzero(pc.fill_null(pc.equal(sources, where), False)))
    return [f"made      {row['where']}: {_quote(row['question'])}" for row in made]


def _search_lines(run: Path, kept: _Kept) -> list[str]:
    """Say what the search for settings, if there was one, did with a training row."""
    facts, request = fact_files.read(run, SearchFacts), fact_files.read(run, RunRequest)
    groups = run / "encoded" / GROUPS
    if facts is None or request is None or not groups.exists():
        return []
    rows = datasets.load_from_disk(run / "encoded")["train"]
    parts = divide(rows, np.load(groups), int(request.config["seed"]), "train.epochs")
    measured = kept.row["where"] in parts["test"]["where"][:]
    return [
        "search    held back: it measured the trials, and was trained on afterwards"
        if measured
        else "search    one of the rows that the trials trained on"
    ]


def _training_lines(run: Path) -> list[str]:
    training = fact_files.read(run, TrainingFacts)
    if training is None:
        return ["train     not trained yet"]
    kept = kept_weights(training)
    model = "" if kept is None else f"; the model has {kept}"
    return [f"train     once in every epoch; the training took {training.steps} steps{model}"]


def _test_lines(run: Path, where: str) -> list[str]:
    answers, metrics = fact_files.read(run, Answers), fact_files.read(run, Metrics)
    if answers is None or metrics is None:
        return ["evaluate  not measured yet"]
    for tuned, base in zip(answers.model, answers.base, strict=True):
        if tuned.where == where:
            return [
                f"evaluate  tuned {_quote(tuned.answer)} (F1 {tuned.f1:.2f})",
                f"          base  {_quote(base.answer)} (F1 {base.f1:.2f})",
            ]
    return ["evaluate  in the loss; not among the rows that were answered (evaluate.generate_rows)"]
