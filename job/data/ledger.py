"""Ledger: accounts for every row. Rows in = rows trained + rows tested + rows rejected.

Writes `rejected.jsonl`, with each rejected row as it was, its location and the reason; and counts the facts of
`data.json`. It does not decide about any row: the stages do.
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
from job.data.prompt import render
from job.data.rows import BATCH
from job.run import durable
from job.run.facts import DataFacts, RejectedCounts, Source
from job.run.row_facts import Closest, KeptRow, Rejection, Rendered, Row

MAX_EXAMPLES = 20
"""Rows shown for each kind of rejection."""
RENDERED_ROWS = 5
"""Encoded rows shown as the model reads them."""
BIN_CHARACTERS = 10
"""Width of a histogram's bins, in characters."""


def write_rejected(path: Path, rejected: list[Rejection], loaded: list[datasets.Dataset]) -> RejectedCounts:
    """Write one JSON line for each rejected row: its location, the stage, the reason, and the row as it was.

    Args:
        path: of rejected.jsonl.
        rejected: each with its text as it may be shown, or with its id.
        loaded: the rows as loaded, in which an id is looked up.

    Returns:
        The number of rejected rows by stage and by reason, with examples.
    """
    originals = datasets.concatenate_datasets(loaded)
    ids = originals.with_format("numpy")["id"][:]
    stages: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    examples: dict[str, list[Row]] = {}
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        for start in range(0, len(rejected), BATCH):
            for row in _with_texts(rejected[start : start + BATCH], originals, ids):
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                kind = f"{row['stage']}: {_kind(row['reason'])}"
                stages[row["stage"]] += 1
                reasons[kind] += 1
                shown = examples.setdefault(kind, [])
                if len(shown) < MAX_EXAMPLES:
                    shown.append(Row(row["where"], row["question"], row["answer"], row["reason"]))
    durable.replace(partial, path)
    by_reason = dict(reasons.most_common())
    return RejectedCounts(len(rejected), dict(stages), by_reason, {kind: examples[kind] for kind in by_reason})


def _with_texts(rejected: list[Rejection], originals: datasets.Dataset, ids: np.ndarray) -> Iterable[dict[str, Any]]:
    positions = np.searchsorted(ids, [row.id or 0 for row in rejected if row.shown is None])
    texts = iter(originals.select_columns(["question", "answer"]).select(positions)) if len(positions) else iter(())
    for row in rejected:
        entry = {"where": row.where, "stage": row.stage, "reason": row.reason}
        yield entry | (next(texts) if row.shown is None else dict(zip(("question", "answer"), row.shown, strict=True)))


def _kind(reason: str) -> str:
    """The reason without the details of one row."""
    for start, kind in (
        ("asks the same as", "asks the same as an earlier row"),
        ("nearly repeats", "nearly repeats an earlier row"),
        ("means the same as", "means the same as an earlier row"),
    ):
        if reason.startswith(start):
            return kind + (", with another answer" if reason.endswith(", with another answer") else "")
    return reason.split(":")[0].split(", with")[0]


def count_rows(
    config: Config,
    sources: list[Source],
    rejected: RejectedCounts,
    repeats: Repeats,
    parts: datasets.DatasetDict,
    tokenizer: PreTrainedTokenizerBase | None,
    mended: int,
    made: datasets.Dataset | None = None,
) -> DataFacts:
    """Count what became of every row.

    Args:
        config: of the run.
        sources: what was read of each source.
        rejected: the counts of `write_rejected`.
        repeats: what dedupe found.
        parts: "train" and "test", encoded if there is a tokenizer.
        tokenizer: that encoded them, if there is one.
        mended: answers whose end-of-sequence token was removed.
        made: rows made of the training rows, which are counted beside all others.

    Returns:
        The facts of data.json.

    Raises:
        AssertionError: the counts do not add up, which is a defect.
    """
    facts = DataFacts(
        rows=sum(source.rows for source in sources),
        train=len(parts["train"]),
        test=len(parts["test"]),
        **vars(rejected),
        clusters=repeats.clusters,
        conflicts=repeats.conflicts,
        doubtful=repeats.doubtful,
        closest=closest_pair(repeats.apart, parts),
        lengths=_length_histograms(parts),
        rendered=_render_examples(parts["train"], tokenizer) if tokenizer is not None else [],
        sources=sources,
        settings=config.model_dump(mode="json", include={"dataset", "clean", "dedupe", "split", "seed"}),
        flagged=[row for part in parts.values() for row in clean.list_flagged(config.clean, part)],
        mended=mended,
        notes=clean.notes(config.clean, list(parts.values())) + _made_notes(made),
        made=0 if made is None else len(made),
        made_examples=_made_examples(made) if made is not None else [],
    )
    if facts.rows != facts.train + facts.test + facts.rejected:
        raise AssertionError(f"rows were lost: {data_line(facts)}")
    return facts


def data_line(facts: DataFacts) -> str:
    """Write the counts as one line for the log."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in facts.rejected_by_reason.items())
    return (
        f"data: {facts.rows} rows in = {facts.train} to train + {facts.test} to test + "
        f"{facts.rejected} rejected{f' ({reasons})' if reasons else ''}"
        f"{f', and {facts.made} made in other wordings' if facts.made else ''}"
    )


def _made_notes(made: datasets.Dataset | None) -> list[str]:
    if made is None or len(made):
        return []
    return ["train.paraphrases is set, and nothing was made: the rules know English questions in one line"]


def _made_examples(made: datasets.Dataset) -> list[Row]:
    rows = made.select(range(min(MAX_EXAMPLES, len(made))))
    return [Row(row["where"], row["question"], row["answer"], f"made from {row['made_from']}") for row in rows]


def closest_pair(pairs: list[tuple[str, str, float]], parts: datasets.DatasetDict) -> Closest | None:
    """Find the most similar pair with one row in train and one in test.

    Args:
        pairs: locations of two rows and their similarity, the most similar pair first.
        parts: "train" and "test".
    """
    wanted = {where for pair in pairs for where in pair[:2]}
    positions = {name: _positions(part, wanted) for name, part in parts.items()}
    for one, other, similarity in pairs:
        sides = (one, other) if one in positions["train"] else (other, one)
        if sides[0] in positions["train"] and sides[1] in positions["test"]:
            rows = [parts[name][positions[name][where]] for name, where in zip(("train", "test"), sides, strict=True)]
            train, test = (KeptRow(row["where"], row["question"]) for row in rows)
            return Closest(round(similarity, 3), train, test)
    return None


def _positions(part: datasets.Dataset, wanted: set[str]) -> dict[str, int]:
    """The positions of the rows that come from the locations wanted."""
    positions: dict[str, int] = {}
    column = part.select_columns("where")  # alone: otherwise the ids of encoded rows become lists as well
    for start in range(0, len(part), BATCH):
        locations = column[start : start + BATCH]["where"]
        positions |= {where: number for number, where in enumerate(locations, start) if where in wanted}
    return positions


def _length_histograms(parts: datasets.DatasetDict) -> dict[str, dict[str, int]]:
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
                lengths = pc.utf8_length(batch[name]).to_numpy() // BIN_CHARACTERS * BIN_CHARACTERS
                counts[f"{name}_characters"].update(lengths.tolist())
    return {name: {str(length): count[length] for length in sorted(count)} for name, count in counts.items()}


def _render_examples(train: datasets.Dataset, tokenizer: PreTrainedTokenizerBase) -> list[Rendered]:
    return [render(row, tokenizer) for row in train.select(range(min(RENDERED_ROWS, len(train))))]
