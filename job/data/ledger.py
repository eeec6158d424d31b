"""Audit: what came of every row. Rows in = rows trained + rows tested + rows rejected.

It writes `rejected.jsonl`, each rejected row as it was, where it stood and why, and counts what stands in `data.json`.
It knows no stage; it takes what the stages say.
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
from job.data.rows import BATCH, IGNORED
from job.run import durable

Rejected = list[dict[str, Any]]
EXAMPLES = 20
RENDERED = 5
CHARACTERS = 10
"""Width of the histograms' bins of characters."""


def write_rejected(path: Path, rejected: Rejected, loaded: list[datasets.Dataset]) -> dict[str, Any]:
    """Write one JSON line for each rejected row: where it stood, the stage, the reason, and the row as it was.

    Args:
        rejected: {"where", "stage", "reason"}, with "question" and "answer" as they shall be shown, or the row's "id".
        loaded: the rows as load gave them; an id is looked up there.

    Returns:
        "rejected", "rejected_by_stage", "rejected_by_reason" and "examples", as in data.json.
    """
    originals = datasets.concatenate_datasets(loaded)
    ids = originals.with_format("numpy")["id"][:]
    stages: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    examples: dict[str, list[dict[str, Any]]] = {}
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
                    shown.append({key: row[key] for key in ("where", "question", "answer", "reason")})
    durable.place(partial, path)
    by_reason = dict(reasons.most_common())
    return {
        "rejected": len(rejected),
        "rejected_by_stage": dict(stages),
        "rejected_by_reason": by_reason,
        "examples": {kind: examples[kind] for kind in by_reason},
    }


def _as_they_were(rejected: Rejected, originals: datasets.Dataset, ids: np.ndarray) -> Iterable[dict[str, Any]]:
    places = np.searchsorted(ids, [row["id"] for row in rejected if "question" not in row])
    found = iter(originals.select_columns(["question", "answer"]).select(places)) if len(places) else iter(())
    for row in rejected:
        texts = {key: row[key] for key in ("question", "answer")} if "question" in row else next(found)
        yield {key: row[key] for key in ("where", "stage", "reason")} | texts


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


def facts(
    config: Config,
    sources: list[dict[str, Any]],
    rejected: dict[str, Any],
    found: dict[str, Any],
    parts: datasets.DatasetDict,
    tokenizer: PreTrainedTokenizerBase | None,
) -> dict[str, Any]:
    """What data.json holds, and the report shows.

        rows, train, test, rejected         counts; `rows` are the rows in
        rejected_by_stage                   {stage: rows}
        rejected_by_reason                  {"stage: reason without what is particular to one row": rows}
        examples                            {the same keys: [{where, question, answer, reason}, ... at most 20]}
        clusters                            [{survivor: {where, question}, victims: [{where, question, similarity}],
                                            size}] of dedupe, the largest first, at most 20, with at most 20 victims
                                            each; similarity is 1.0 for an exact repeat; `size` counts all victims
        conflicts                           [{question, answers: [{where, answer}], kept: where, or "all"}], at most 20
        doubtful                            [{similarity, rows: [{where, question, answer}, the same]}], pairs that were
                                            kept though they may say the same, at most 20
        closest                             {similarity, train: {where, question}, test: {where, question}}, the most
                                            similar pair that was found on both sides, of rows that are no near twins;
                                            null if there is none
        lengths                             {tokens: {"n": rows}, question_characters: {"n": rows},
                                            answer_characters: {"n": rows}}; characters in steps of 10 ("0", "10", ...),
                                            tokens exact; of the rows trained and tested; tokens is {} without tokenizer
        rendered                            [{where, prompt, answer}], five rows of train: the prompt as the template
                                            renders it, and the part that is trained; [] without tokenizer
        flagged                             [{where, reason, question, answer}], kept, and to be shown (by clean)
        mended                              answers that ended with the tokenizer's own end mark, which was removed
        notes                               [sentence], what a person should know of the rows kept (by clean)
        sources                             [{source, rows, question, answer, unused, sha256 or revision, ...}]; of one
                                            with a weight below 1, `rows` were drawn and `not_drawn` were not
        settings                            {dataset, clean, dedupe, split, seed} of the config

    Args:
        rejected: as `write_rejected` gives it.
        found: "clusters", "conflicts", "doubtful" and "closest".
        parts: "train" and "test", encoded if there is a tokenizer.
    """
    settings = config.model_dump(mode="json", include={"dataset", "clean", "dedupe", "split", "seed"})
    counted = {
        "rows": sum(source["rows"] for source in sources),
        "train": len(parts["train"]),
        "test": len(parts["test"]),
        **rejected,
    }
    if counted["rows"] != counted["train"] + counted["test"] + counted["rejected"]:
        raise AssertionError(f"rows got lost: {data_line(counted)}")
    return {
        **counted,
        **{name: found[name] for name in ("clusters", "conflicts", "doubtful", "closest")},
        "lengths": _lengths(parts),
        "rendered": _rendered(parts["train"], tokenizer) if tokenizer is not None else [],
        "sources": sources,
        "settings": settings,
    }


def data_line(facts: dict[str, Any]) -> str:
    """The counts in one line, for the log."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in facts["rejected_by_reason"].items())
    return (
        f"data: {facts['rows']} rows in = {facts['train']} to train + {facts['test']} to test + "
        f"{facts['rejected']} rejected{f' ({reasons})' if reasons else ''}"
    )


def closest(pairs: list[tuple[str, str, float]], parts: datasets.DatasetDict) -> dict[str, Any] | None:
    """The first pair of places, the most similar first, that the split has put on both sides."""
    wanted = {where for pair in pairs for where in pair[:2]}
    place = {name: _places(part, wanted) for name, part in parts.items()}
    for one, other, similarity in pairs:
        sides = (one, other) if one in place["train"] else (other, one)
        if sides[0] in place["train"] and sides[1] in place["test"]:
            rows = [parts[name][place[name][where]] for name, where in zip(("train", "test"), sides, strict=True)]
            train, test = ({"where": row["where"], "question": row["question"]} for row in rows)
            return {"similarity": round(similarity, 3), "train": train, "test": test}
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


def _rendered(train: datasets.Dataset, tokenizer: PreTrainedTokenizerBase) -> list[dict[str, str]]:
    rows = []
    for row in train.select(range(min(RENDERED, len(train)))):
        prompt = sum(label == IGNORED for label in row["labels"])
        asked, trained = tokenizer.decode(row["input_ids"][:prompt]), tokenizer.decode(row["input_ids"][prompt:])
        rows.append({"where": row["where"], "prompt": asked, "answer": trained})
    return rows
