"""Prepare: the stages of the data in their order, from files to the encoded rows of the run folder.

load -> clean -> encode -> dedupe -> split -> ledger. What is too long goes before repeats are looked for and before the
split, so that no row is dropped for one that goes itself, and the test rows are their share of what is left.

Between the stages rows lie in `preparing/`, which is gone afterwards. What stays is data.json, rejected.jsonl and, with
a tokenizer, encoded/. It knows the stages of the data. It does not know the model, only its tokenizer.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial

import datasets
from transformers import PreTrainedTokenizerBase

from job.config.schema import Config, DatasetSection
from job.data import encode, ledger, load, split, unused_columns
from job.data.clean import clean, rules
from job.data.dedupe import dedupe
from job.data.dedupe.repeats import Repeats
from job.errors import DataError
from job.run import durable
from job.run.facts import Answers, DataFacts, Source
from job.run.folder import RunFolder
from job.run.row_facts import Rejection

log = logging.getLogger(__name__)
Stage = Callable[[datasets.Dataset], tuple[datasets.Dataset, list[Rejection]]]


def prepare(
    config: Config,
    folder: RunFolder,
    find_tokenizer: Callable[[], PreTrainedTokenizerBase | None],
    judge: Callable[[datasets.DatasetDict], None] | None = None,
) -> datasets.DatasetDict:
    """Run the stages of the data.

    Args:
        find_tokenizer: asked once the rows are clean, so that a mistake in the data costs no download. Without a
            tokenizer the rows stay text, and no length in tokens is known.
        judge: shown the encoded rows before anything is written; raises if they must not replace earlier ones.

    Returns:
        "train" and "test".

    Raises:
        ConfigError, DataError: what is wrong with the files, the columns or the rows.
    """
    preparing = folder / "preparing"
    preparing.mkdir()
    try:
        return _prepare(config, folder, find_tokenizer, judge)
    finally:
        shutil.rmtree(preparing, ignore_errors=True)


def _prepare(
    config: Config,
    folder: RunFolder,
    find_tokenizer: Callable[[], PreTrainedTokenizerBase | None],
    judge: Callable[[datasets.DatasetDict], None] | None,
) -> datasets.DatasetDict:
    with folder.phase("load", "reading the rows from files and data sets"):
        rows, test, rejected, sources = load.load(config.dataset, folder / "preparing", config.seed, config.split.group)
        given = loaded = [rows] if test is None else [rows, test]
        for source in sources:
            log.info(_source_line(source))
    with folder.phase("clean", "repairing texts and setting aside rows that cannot be used"):
        given = _each(given, rejected, partial(clean.clean, config.clean))
    tokenizer, mended = find_tokenizer(), 0
    if tokenizer is not None:
        with folder.phase(
            "encode", "turning each row into the tokens that the model reads, and setting aside what is too long"
        ):
            given, mended = _encode(config, given, rejected, tokenizer)
    with folder.phase("dedupe", "dropping rows that repeat another"):
        train, test, repeats = _dedupe(config, given, rejected, sources)
    with folder.phase("split", "choosing which rows are trained and which only tested"):
        families = repeats.families[len(test) if test is not None else 0 :]
        parts = split.split(config.split, config.seed, train, test, families).remove_columns(["id", "group"])
        if tokenizer is not None and judge is not None:
            judge(parts)
    with folder.phase("audit", "counting what became of every row"):
        counts = ledger.write_rejected(folder / "rejected.jsonl", rejected, loaded)
        facts = ledger.counted(config, sources, counts, repeats, parts, tokenizer, mended)
        _say(facts)
        if tokenizer is not None and len(parts["train"]):
            _save(parts, folder)
            parts = encoded(folder)
    folder.write(facts)
    return parts


def encoded(folder: RunFolder) -> datasets.DatasetDict:
    """The encoded rows that were saved: "train" and "test"."""
    parts = datasets.load_from_disk(folder / "encoded")
    return datasets.DatasetDict(train=parts["train"], test=parts.get("test", parts["train"].select([])))


def sample(folder: RunFolder) -> list[str]:
    """Five questions to ask the published copy: test rows that were answered, or else training rows.

    The copy has to answer as the model does, rightly or not.
    """
    answers = folder.read(Answers)
    answered = [row.question for row in answers.model] if answers is not None else []
    return (answered or encoded(folder)["train"]["question"][:])[:5]


def require_train_rows(facts: DataFacts, folder: RunFolder) -> None:
    """Raise DataError if no row is left to train on."""
    if not facts.train:
        commonest = list(facts.rejected_by_reason.items())[:3]
        why = "".join(f", {count} {reason}" for reason, count in commonest)
        raise DataError(
            f"no row is left to train on: {facts.rows} rows in, {facts.rejected} rejected{why}; "
            f"{folder / 'rejected.jsonl'} says why each one was rejected"
        )


def require_test_rows(facts: DataFacts, config: Config, folder: RunFolder) -> None:
    """Before training: raise DataError if the gate will need a test row and there is none."""
    if facts.test:
        return
    if config.evaluate.gate != "off" and not folder.is_trained():
        raise DataError(
            f"no row is left for testing, and evaluate.gate is {config.evaluate.gate}: after the training it would "
            f"refuse to publish. Expected a test row, found {facts.train} rows to train and {facts.rejected} "
            f"rejected ({folder / 'rejected.jsonl'}); give more rows, name test rows in dataset.test, or set "
            "evaluate.gate=off"
        )
    log.warning("no row is left for testing: nothing can be measured")


def _encode(
    config: Config, given: list[datasets.Dataset], rejected: list[Rejection], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[datasets.Dataset], int]:
    counted: Counter[str] = Counter()
    judge = partial(rules.broken, config.clean)
    given = _each(given, rejected, lambda part: encode.encode(part, tokenizer, config.model.max_length, counted, judge))
    if counted["mended"]:
        log.info(f"encode: the end mark behind {counted['mended']} answers was removed; each gets one anyway")
    return given, counted["mended"]


def _dedupe(
    config: Config, given: list[datasets.Dataset], rejected: list[Rejection], sources: list[Source]
) -> tuple[datasets.Dataset, datasets.Dataset | None, Repeats]:
    rows, test = given[0], given[1] if len(given) > 1 else None
    rows, test, dropped, repeats = dedupe.dedupe(config.dedupe, rows, test, config.split.keep_together)
    rejected += dropped
    lost = sum(row.reason.endswith(dedupe.WITH_ANOTHER_ANSWER) for row in dropped)
    unused_columns.require_told_apart(sum(map(len, given)), lost, _left_out(config.dataset, sources))
    return rows, test, repeats


def _each(parts: list[datasets.Dataset], rejected: list[Rejection], stage: Stage) -> list[datasets.Dataset]:
    """The stage applied to each part; the rows that it rejects are added to `rejected`."""
    done = []
    for part in parts:
        kept, dropped = stage(part)
        done.append(kept)
        rejected += dropped
    return done


def _left_out(section: DatasetSection, sources: list[Source]) -> list[str]:
    """The unused columns, but for those that the config ignores on purpose."""
    ignored = {*section.ignore_columns, *(name for source in section.sources for name in source.ignore_columns)}
    return [name for source in sources for name in source.unused if name not in ignored]


def _save(parts: datasets.DatasetDict, folder: RunFolder) -> None:
    # datasets cannot read back a part without rows
    kept = datasets.DatasetDict({name: part for name, part in parts.items() if len(part)})
    kept.save_to_disk(folder / "encoded.partial")
    durable.replace(folder / "encoded.partial", folder / "encoded")


def _source_line(source: Source) -> str:
    unused = f", not used: {', '.join(source.unused)}" if source.unused else ""
    not_drawn = f", {source.not_drawn} not drawn" if source.not_drawn else ""
    return f"load: {source.rows} rows of {source.source}{not_drawn}, {source.question} -> {source.answer}{unused}"


def _say(facts: DataFacts) -> None:
    log.info(ledger.data_line(facts))
    for note in facts.notes:
        log.info(f"data: {note}")
