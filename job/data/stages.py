"""Stages: runs the stages of the data in their order, from files to the encoded rows of the run folder.

load -> clean -> encode -> dedupe -> split -> made rows -> ledger. Rows that are too long are rejected before repeats
are looked for and before the split, so that no row is dropped in favour of one that is rejected, and the test set is a
share of the rows that remain.

Between the stages the rows are in `preparing/`, which is removed at the end. The results are data.json, rejected.jsonl
and, with a tokenizer, encoded/. It knows the stages of the data. It does not know the model, only its tokenizer.
"""

import logging
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial

import datasets
import numpy as np
from transformers import PreTrainedTokenizerBase

from job.config.schema import Config, DatasetSection
from job.data import encode, ledger, load, made_rows, split, unused_columns
from job.data.clean import clean, rules
from job.data.dedupe import dedupe
from job.data.dedupe.repeats import Repeats
from job.data.split import Indices
from job.errors import DataError
from job.run import durable
from job.run.facts import Answers, DataFacts, Source
from job.run.folder import RunFolder
from job.run.row_facts import Rejection

log = logging.getLogger(__name__)
GROUPS = "groups.npy"
"""File of the encoded rows: the number of each training row's group."""
EncodeRows = Callable[..., tuple[datasets.Dataset, list[Rejection]]]
"""`encode.encode`, or `pairs.encode` with its prompts: (rows, tokenizer, max_length, counts, check)."""
ChooseForms = Callable[[datasets.DatasetDict], datasets.DatasetDict]
Stage = Callable[[datasets.Dataset], tuple[datasets.Dataset, list[Rejection]]]


def prepare(
    config: Config,
    folder: RunFolder,
    find_tokenizer: Callable[[], PreTrainedTokenizerBase | None],
    check_parts: Callable[[datasets.DatasetDict], None] | None = None,
    encode_rows: EncodeRows = encode.encode,
    choose: ChooseForms | None = None,
) -> datasets.DatasetDict:
    """Run the stages of the data.

    Args:
        config: of the run.
        folder: of the run, where the results are written.
        find_tokenizer: called once the rows are clean, so that a mistake in the data costs no download. If it returns
            None, the rows stay text and no length in tokens is known.
        check_parts: given "train" and "test", encoded, before anything is written; raises an error if they must not
            replace earlier ones.
        encode_rows: turns the rows into tokens.
        choose: chooses the form of training and test rows after the split, where `encode_rows` gives them two.

    Returns:
        "train" and "test".

    Raises:
        ConfigError: a column or a key of the config does not fit the data.
        DataError: something is wrong with the files, the columns or the rows.
    """
    preparing = folder / "preparing"
    preparing.mkdir()
    try:
        return _prepare(config, folder, find_tokenizer, check_parts, encode_rows, choose)
    finally:
        shutil.rmtree(preparing, ignore_errors=True)


def _prepare(
    config: Config,
    folder: RunFolder,
    find_tokenizer: Callable[[], PreTrainedTokenizerBase | None],
    check_parts: Callable[[datasets.DatasetDict], None] | None,
    encode_rows: EncodeRows,
    choose: ChooseForms | None,
) -> datasets.DatasetDict:
    with folder.phase("load", "reading the rows from files and data sets"):
        rows, test, rejected, sources = load.load(config.dataset, folder / "preparing", config.seed, config.split.group)
        data = loaded = [rows] if test is None else [rows, test]
        for source in sources:
            log.info(_source_line(source))
    with folder.phase("clean", "repairing texts and setting aside rows that cannot be used"):
        data = _apply(data, rejected, partial(clean.clean, config.clean))
    tokenizer, mended = find_tokenizer(), 0
    if tokenizer is not None:
        with folder.phase(
            "encode", "turning each row into the tokens that the model reads, and setting aside what is too long"
        ):
            data, mended = _encode(config, data, rejected, tokenizer, encode_rows)
    with folder.phase("dedupe", "dropping rows that repeat another"):
        train, test, repeats = _dedupe(config, data, rejected, sources)
    with folder.phase("split", "choosing which rows to train on and which to test on"):
        families = repeats.families[len(test) if test is not None else 0 :]
        parts = split.split(config.split, config.seed, train, test, families)
        groups = split.number_groups(train, families)[np.isin(_ids(train), _ids(parts["train"]))]
        parts = parts.remove_columns(["id", "group"])
        made = _make_rows(config, folder, parts, tokenizer, encode_rows)
        to_train = parts
        if made is not None:
            groups = np.concatenate([groups, groups[made_rows.find_originals(parts["train"], made)]])
            to_train = made_rows.add(parts, made)
        if tokenizer is not None and choose is not None:
            to_train = choose(to_train)
            parts = datasets.DatasetDict(train=made_rows.originals(to_train["train"]), test=to_train["test"])
        if tokenizer is not None and check_parts is not None:
            check_parts(to_train)
    with folder.phase("audit", "counting what happened to every row"):
        counts = ledger.write_rejected(folder / "rejected.jsonl", rejected, loaded)
        facts = ledger.count_rows(config, sources, counts, repeats, parts, tokenizer, mended, made)
        _log_facts(facts)
        if tokenizer is not None and len(parts["train"]):
            _save(to_train, groups, folder)
            to_train = load_encoded(folder)
    folder.write(facts)
    return to_train


def load_encoded(folder: RunFolder) -> datasets.DatasetDict:
    """Load the encoded rows of a run: "train" and "test"; the latter may be empty."""
    parts = datasets.load_from_disk(folder / "encoded")
    return datasets.DatasetDict(train=parts["train"], test=parts.get("test", parts["train"].select([])))


def sample_questions(folder: RunFolder) -> list[str]:
    """Choose five questions to ask the published copy, which has to give the model's answers, right or wrong.

    Returns:
        Questions of test rows that were answered, or else of training rows.
    """
    answers = folder.read(Answers)
    answered = [row.question for row in answers.model] if answers is not None else []
    return (answered or load_encoded(folder)["train"]["question"][:])[:5]


def require_train_rows(facts: DataFacts, folder: RunFolder) -> None:
    """Require a row to train on.

    Raises:
        DataError: none is left.
    """
    if not facts.train:
        commonest = list(facts.rejected_by_reason.items())[:3]
        why = "".join(f", {count} {reason}" for reason, count in commonest)
        raise DataError(
            f"no row is left to train on: {facts.rows} rows in, {facts.rejected} rejected{why}; "
            f"{folder / 'rejected.jsonl'} says why each one was rejected"
        )


def require_test_rows(facts: DataFacts, config: Config, folder: RunFolder) -> None:
    """Require a test row, before training, if the gate needs one.

    Raises:
        DataError: the gate is on, and there is no test row.
    """
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
    config: Config,
    data: list[datasets.Dataset],
    rejected: list[Rejection],
    tokenizer: PreTrainedTokenizerBase,
    encode_rows: EncodeRows,
) -> tuple[list[datasets.Dataset], int]:
    counts: Counter[str] = Counter()
    check = partial(rules.rejection_reason, config.clean)
    data = _apply(data, rejected, lambda part: encode_rows(part, tokenizer, config.model.max_length, counts, check))
    if counts["mended"]:
        log.info(
            f"encode: the end-of-sequence token after {counts['mended']} answers was removed; "
            "each answer gets one anyway"
        )
    return data, counts["mended"]


def _dedupe(
    config: Config, data: list[datasets.Dataset], rejected: list[Rejection], sources: list[Source]
) -> tuple[datasets.Dataset, datasets.Dataset | None, Repeats]:
    rows, test = data[0], data[1] if len(data) > 1 else None
    rows, test, dropped, repeats = dedupe.dedupe(config.dedupe, rows, test, config.split.keep_together)
    rejected += dropped
    lost = sum(row.reason.endswith(dedupe.WITH_ANOTHER_ANSWER) for row in dropped)
    unused_columns.require_few_conflicts(sum(map(len, data)), lost, _unused_columns(config.dataset, sources))
    return rows, test, repeats


def _make_rows(
    config: Config,
    folder: RunFolder,
    parts: datasets.DatasetDict,
    tokenizer: PreTrainedTokenizerBase | None,
    encode_rows: EncodeRows,
) -> datasets.Dataset | None:
    """Make rows in other wordings, encoded if there is a tokenizer; one that is too long is not made."""
    if not config.train.paraphrases or not len(parts["train"]):
        return None
    made = made_rows.make(parts, config.train.paraphrases, config.seed, folder / "preparing" / "made.arrow")
    return made if tokenizer is None else encode_rows(made, tokenizer, config.model.max_length)[0]


def _apply(parts: list[datasets.Dataset], rejected: list[Rejection], stage: Stage) -> list[datasets.Dataset]:
    """Apply the stage to each part, and add the rows that it rejects to `rejected`."""
    results = []
    for part in parts:
        kept, dropped = stage(part)
        results.append(kept)
        rejected += dropped
    return results


def _unused_columns(section: DatasetSection, sources: list[Source]) -> list[str]:
    """The columns that were not read, without those that the config ignores on purpose."""
    ignored = {*section.ignore_columns, *(name for source in section.sources for name in source.ignore_columns)}
    return [name for source in sources for name in source.unused if name not in ignored]


def _ids(rows: datasets.Dataset) -> Indices:
    ids: Indices = rows.select_columns("id").with_format("numpy")["id"][:]
    return ids


def load_groups(folder: RunFolder) -> Indices | None:
    """Load the number of each training row's group, by which rows were split; None if it was not saved."""
    path = folder / "encoded" / GROUPS
    return np.load(path) if path.exists() else None


def _save(parts: datasets.DatasetDict, groups: Indices, folder: RunFolder) -> None:
    # datasets cannot read back a part without rows
    kept = datasets.DatasetDict({name: part for name, part in parts.items() if len(part)})
    kept.save_to_disk(folder / "encoded.partial")
    np.save(folder / "encoded.partial" / GROUPS, groups)
    durable.replace(folder / "encoded.partial", folder / "encoded")


def _source_line(source: Source) -> str:
    unused = f", not used: {', '.join(source.unused)}" if source.unused else ""
    not_drawn = f", {source.not_drawn} not drawn" if source.not_drawn else ""
    return f"load: {source.rows} rows of {source.source}{not_drawn}, {source.question} -> {source.answer}{unused}"


def _log_facts(facts: DataFacts) -> None:
    log.info(ledger.data_line(facts))
    for note in facts.notes:
        log.info(f"data: {note}")
