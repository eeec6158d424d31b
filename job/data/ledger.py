"""Ledger: accounts for every row. Rows in = rows trained + rows tested + rows rejected.

Writes `rejected.jsonl`, each rejected row as it was, its place and the reason, and counts what `data.json` holds. It
does not decide about any row; it takes what the stages say.
"""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
from transformers import PreTrainedTokenizerBase

from job.config.schema import Config
from job.data.clean import clean
from job.data.dedupe.repeats import Repeats
from job.data.rows import BATCH, IGNORED
from job.run import durable
from job.run.facts import DataFacts, RejectedCounts, Source
from job.run.row_facts import Closest, KeptRow, Rejection, Rendered, Row

EXAMPLES = 20
RENDERED = 5
CHARACTERS = 10
"""Width of the histograms' bins of characters."""


def write_rejected(path: Path, rejected: list[Rejection], loaded: list[datasets.Dataset]) -> RejectedCounts:
    """Write one JSON line for each rejected row: where it stood, the stage, the reason, and the row as it was.

    Args:
        rejected: each with its text as it may be shown, or with its id.
        loaded: the rows as load gave them; an id is looked up there.
    """
    originals = datasets.concatenate_datasets(loaded)
    ids = originals.with_format("numpy")["id"][:]
    stages: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    examples: dict[str, list[Row]] = {}
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        for start in range(0, len(rejected), BATCH):
            for row in _as_they_were(rejected[start : start + BATCH], originals, ids):
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                kind = f"{row['stage']}: {_kind(row['reason'])}"
                stages[row["stage"]] += 1
                reasons[kind] += 1
                shown = examples.setdefault(kind, [])
                if len(shown) < EXAMPLES:
                    shown.append(Row(row["where"], row["question"], row["answer"], row["reason"]))
    durable.replace(partial, path)
    by_reason = dict(reasons.most_common())
    return RejectedCounts(len(rejected), dict(stages), by_reason, {kind: examples[kind] for kind in by_reason})


def _as_they_were(rejected: list[Rejection], originals: datasets.Dataset, ids: np.ndarray) -> Iterable[dict[str, Any]]:
    places = np.searchsorted(ids, [row.id or 0 for row in rejected if row.shown is None])
    found = iter(originals.select_columns(["question", "answer"]).select(places)) if len(places) else iter(())
    for row in rejected:
        told = {"where": row.where, "stage": row.stage, "reason": row.reason}
        yield told | (next(found) if row.shown is None else dict(zip(("question", "answer"), row.shown, strict=True)))


def _kind(reason: str) -> str:
    """A reason without what is particular to one row."""
    for start, kind in (
        ("asks the same as", "asks the same as an earlier row"),
        ("nearly repeats", "nearly repeats an earlier row"),
        ("means the same as", "means the same as an earlier row"),
    ):
        if reason.startswith(start):
            return kind + (", with another answer" if reason.endswith(", with another answer") else "")
    return reason.split(":")[0].split(", with")[0]


def counted(
    config: Config,
    sources: list[Source],
    rejected: RejectedCounts,
    repeats: Repeats,
    parts: datasets.DatasetDict,
    tokenizer: PreTrainedTokenizerBase | None,
    mended: int,
) -> DataFacts:
    """What became of the rows, as data.json holds it and the report shows it.

    Args:
        rejected: as `write_rejected` gives it.
        parts: "train" and "test", encoded if there is a tokenizer.
        mended: answers whose end-of-text mark was removed.
    """
    facts = DataFacts(
        rows=sum(source.rows for source in sources),
        train=len(parts["train"]),
        test=len(parts["test"]),
        **vars(rejected),
        clusters=repeats.clusters,
        conflicts=repeats.conflicts,
        doubtful=repeats.doubtful,
        closest=closest(repeats.apart, parts),
        lengths=_lengths(parts),
        rendered=_rendered(parts["train"], tokenizer) if tokenizer is not None else [],
        sources=sources,
        settings=config.model_dump(mode="json", include={"dataset", "clean", "dedupe", "split", "seed"}),
        flagged=[row for part in parts.values() for row in clean.flagged(config.clean, part)],
        mended=mended,
        notes=clean.notes(config.clean, list(parts.values())),
    )
    if facts.rows != facts.train + facts.test + facts.rejected:
        raise AssertionError(f"rows got lost: {data_line(facts)}")
    return facts


def data_line(facts: DataFacts) -> str:
    """The counts in one line, for the log."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in facts.rejected_by_reason.items())
    return (
        f"data: {facts.rows} rows in = {facts.train} to train + {facts.test} to test + "
        f"{facts.rejected} rejected{f' ({reasons})' if reasons else ''}"
    )


def closest(pairs: list[tuple[str, str, float]], parts: datasets.DatasetDict) -> Closest | None:
    """The first pair of places, the most similar first, that the split has put on both sides."""
    wanted = {where for pair in pairs for where in pair[:2]}
    place = {name: _places(part, wanted) for name, part in parts.items()}
    for one, other, similarity in pairs:
        sides = (one, other) if one in place["train"] else (other, one)
        if sides[0] in place["train"] and sides[1] in place["test"]:
            rows = [parts[name][place[name][where]] for name, where in zip(("train", "test"), sides, strict=True)]
            train, test = (KeptRow(row["where"], row["question"]) for row in rows)
            return Closest(round(similarity, 3), train, test)
    return None


def _places(part: datasets.Dataset, wanted: set[str]) -> dict[str, int]:
    """The positions of the rows that stood at the places wanted."""
    found: dict[str, int] = {}
    column = part.select_columns("where")  # alone: an encoded row's ids would be made lists as well
    for start in range(0, len(part), BATCH):
        places = column[start : start + BATCH]["where"]
        found |= {where: number for number, where in enumerate(places, start) if where in wanted}
    return found


def _lengths(parts: datasets.DatasetDict) -> dict[str, dict[str, int]]:
    """Histograms over all rows of both parts."""
    counts: dict[str, Counter[int]] = {
        "tokens": Counter(),
        "question_characters": Counter(),
        "answer_characters": Counter(),
    }
    for part in parts.values():
        table = part.with_format("arrow")
        for start in range(0, len(part), BATCH * 10):
            batch = table[start : start + BATCH * 10]
            if "input_ids" in batch.column_names:
                counts["tokens"].update(pc.list_value_length(batch["input_ids"]).to_pylist())
            for name in ("question", "answer"):
                lengths = pc.utf8_length(batch[name]).to_numpy() // CHARACTERS * CHARACTERS
                counts[f"{name}_characters"].update(lengths.tolist())
    return {name: {str(length): count[length] for length in sorted(count)} for name, count in counts.items()}


def _rendered(train: datasets.Dataset, tokenizer: PreTrainedTokenizerBase) -> list[Rendered]:
    rows = []
    for row in train.select(range(min(RENDERED, len(train)))):
        prompt = sum(label == IGNORED for label in row["labels"])
        asked, trained = tokenizer.decode(row["input_ids"][:prompt]), tokenizer.decode(row["input_ids"][prompt:])
        rows.append(Rendered(row["where"], str(asked), str(trained)))
    return rows
