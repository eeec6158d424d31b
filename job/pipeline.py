"""The order of the stages, and nothing else.

Each stage takes and gives plain things: data sets, folders, dicts of numbers. What is finished is not done again,
so calling `run` once more after an interruption or a failed push goes on where it stopped.
"""

import logging
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from job import check
from job.config.schema import Config, DatasetSection
from job.data import encode, ledger, load, split, unused_columns
from job.data.clean import clean, rules
from job.data.dedupe import dedupe
from job.data.local_files import local_data, there
from job.errors import DataError, PublishError
from job.evaluation import evaluate, gate
from job.hub import client
from job.model import base
from job.publishing import publish
from job.report import report
from job.report.rendering import shown
from job.run import disk, durable, machine
from job.run.folder import RunFolder
from job.training import origin, train

log = logging.getLogger(__name__)


def run(config: Config) -> str:
    """Every stage in order; the sentence that says what came of it."""
    client.configure(config.publish.timeout_seconds)
    here = machine.detect(config.train.device, config.train.precision)
    folder = RunFolder(config)
    with folder.held() if here.rank == 0 else nullcontext():
        return _run(config, folder, here)


def _run(config: Config, folder: RunFolder, here: machine.Machine) -> str:
    if here.rank == 0:
        _preflight(config, folder)
        folder.claim(local_data(config.dataset, folder.finished()))
        prepare(config, folder)
        folder.pin()
    here.wait()
    rows = _encoded(folder)
    if not (folder / "model").exists():
        with _phase(folder, "train", here.rank):
            train.train(config.train, config.seed, rows, folder / "base", folder.path, here)
    if here.rank == 0:
        folder.discard("checkpoints")
    if _to_measure(config, folder, here):
        measure(config, folder, here)
    if here.rank > 0:
        return "trained and measured; process 0 goes on alone"
    return deliver(config, folder, here)


def evaluate_only(config: Config) -> str:
    """Measure again what `run` left, and write report and card anew."""
    with _finished(config) as (folder, here):
        measure(config, folder, here)
        report.report(folder.path, folder.pinned())
        publish.assemble(folder.path, folder.pinned())
        return f"measured {folder / 'model'}: {_summary(folder.read('metrics.json'))}"


def publish_only(config: Config) -> str:
    """Publish what `run` left; the gate is asked again."""
    with _finished(config) as (folder, here):
        publish.preflight(config, there(config.dataset))
        if _to_measure(config, folder, here):
            measure(config, folder, here)
        return deliver(config, folder, here)


def check_only(config: Config) -> str:
    """Everything that can be known before spending a GPU minute, in a scratch folder; the report of the data stays."""
    client.configure(config.publish.timeout_seconds)
    here = machine.detect(config.train.device, config.train.precision)
    publish.preflight(config, there(config.dataset), create=False)
    run = RunFolder(config)
    run.require_writable()
    with tempfile.TemporaryDirectory(prefix="kickoff-check-") as scratch:
        trial = config.model_copy(update={"output": str(Path(scratch) / run.path.name)})
        folder = RunFolder(trial)
        folder.require_writable()
        folder.claim(local_data(config.dataset))
        prepare(trial, folder)
        rows = _encoded(folder)
        steps = train.count_steps(config.train, len(rows["train"]), here.processes)
        check.show_rows(rows, AutoTokenizer.from_pretrained(folder / "base"))
        for line in disk.require(disk.needed(config, folder.path)):
            log.info(f"disk: {line}")
        pace = train.rehearse(config.train, rows["train"], folder / "base", here)
        report.report(folder.path, config)
        durable.write(run / "check.html", (folder / "report.html").read_text(encoding="utf-8"))
        forecast = check.forecast(rows, steps, config.train.epochs, pace)
        return f"{forecast}; the data is shown in {run / 'check.html'}"


def prepare_only(config: Config) -> str:
    """The data part alone: counts, rejected rows and the report, without a model."""
    client.configure(config.publish.timeout_seconds)
    folder = RunFolder(config)
    with folder.held():
        folder.claim(local_data(config.dataset, folder.finished()))
        if folder.read("data.json") is None:
            prepare_rows(folder.to_prepare(), folder, lambda: _tokenizer(folder))
        folder.pin()
        report.report(folder.path, folder.pinned())
        _require_rows(folder)
        return f"prepared: {ledger.data_line(folder.read('data.json'))[6:]}; see {folder / 'report.html'}"


def prepare(config: Config, folder: RunFolder) -> None:
    """From the data set and the base model to encoded rows in the run folder."""
    if (
        folder.read("data.json") is not None
        and (folder / "base" / "base.json").exists()
        and (folder / "encoded").exists()
    ):
        log.info(f"data: prepared before, in {folder.path}")
    else:
        prepare_rows(folder.to_prepare(), folder, lambda: _fetch(folder.to_prepare(), folder))
    _require_rows(folder)
    _require_test_rows(config, folder)


def _require_test_rows(config: Config, folder: RunFolder) -> None:
    """Before anything is trained: a row to test, if the gate shall judge the model by it."""
    counts, rejected = folder.read("data.json"), folder / "rejected.jsonl"
    if counts["test"]:
        return
    if config.evaluate.gate != "off" and not (folder / "model").exists():
        raise DataError(
            f"no row is left for testing, and evaluate.gate is {config.evaluate.gate}: after the training it would "
            f"refuse to publish. Expected a test row, found {counts['train']} rows to train and {counts['rejected']} "
            f"rejected ({rejected}); give more rows, name test rows in dataset.test, or set evaluate.gate=off"
        )
    log.warning("no row is left for testing: nothing can be measured")


def _require_rows(folder: RunFolder) -> None:
    facts = folder.read("data.json")
    if not facts["train"]:
        commonest = list(facts["rejected_by_reason"].items())[:3]
        why = "".join(f", {count} {reason}" for reason, count in commonest)
        raise DataError(
            f"no row is left to train on: {facts['rows']} rows in, {facts['rejected']} rejected{why}; "
            f"{folder / 'rejected.jsonl'} says why each one was rejected"
        )


def _fetch(config: Config, folder: RunFolder) -> PreTrainedTokenizerBase:
    """Bring the base model; its tokenizer."""
    with _phase(folder, "base"):
        model = base.fetch(config.model, folder / "base", folder.trained_from())
    size = f"{model['parameters'] / 1e6:.1f}M parameters"
    log.info(f"base: {model['base']}, {size}, chat template: {model['chat_template']}")
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder / "base")
    return tokenizer


def _tokenizer(folder: RunFolder) -> PreTrainedTokenizerBase | None:
    """The tokenizer that the run has already, or one that costs no download."""
    if (folder / "base" / "base.json").exists():
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder / "base")
        return found
    return base.tokenizer(folder.to_prepare().model)


def prepare_rows(
    config: Config, folder: RunFolder, find_tokenizer: Callable[[], PreTrainedTokenizerBase | None]
) -> datasets.DatasetDict:
    """The stages of the data; without a tokenizer the rows stay text, and no length in tokens is known.

    The tokenizer is asked for once the rows are clean: a mistake in the data costs no download. What is too long goes
    before repeats are looked for and before the split, so that no row is dropped for one that goes itself, and the
    test rows are their share of what is left. Rows between the stages lie in `preparing/`, which is gone afterwards;
    what stays is data.json, rejected.jsonl and, with a tokenizer, encoded/.
    """
    preparing = folder / "preparing"
    preparing.mkdir()
    try:
        with _phase(folder, "load"):
            rows, test, rejected, sources = load.load(config.dataset, preparing, config.seed, config.split.group)
            loaded = [rows] if test is None else [rows, test]
            for facts in sources:
                log.info(_source_line(facts))
        given = [rows] if test is None else [rows, test]
        with _phase(folder, "clean"):
            given = _each(given, rejected, lambda part: clean.clean(config.clean, part))
        tokenizer = find_tokenizer()
        counted: Counter[str] = Counter()
        if tokenizer is not None:
            with _phase(folder, "encode"):
                longest = config.model.max_length
                judge = partial(rules.broken, config.clean)
                given = _each(given, rejected, lambda part: encode.encode(part, tokenizer, longest, counted, judge))
            if counted["mended"]:
                log.info(f"encode: the end mark behind {counted['mended']} answers was removed; each gets one anyway")
        rows, test = given[0], given[1] if len(given) > 1 else None
        with _phase(folder, "dedupe"):
            rows, test, dropped, found = dedupe.dedupe(config.dedupe, rows, test, config.split.keep_together)
            rejected += dropped
            lost = sum(row["reason"].endswith(dedupe.WITH_ANOTHER_ANSWER) for row in dropped)
            unused_columns.require_told_apart(sum(map(len, given)), lost, _left_out(config.dataset, sources))
        with _phase(folder, "split"):
            families = found["families"][len(test) if test is not None else 0 :]
            parts = split.split(config.split, config.seed, rows, test, families).remove_columns(["id", "group"])
            if tokenizer is not None and (folder / "model").exists():
                origin.require_same(folder.read("training.json"), parts, str(folder.path))
        with _phase(folder, "audit"):
            counts = ledger.write_rejected(folder / "rejected.jsonl", rejected, loaded)
            found["closest"] = ledger.closest(found["apart"], parts)
            facts = ledger.facts(config, sources, counts, found, parts, tokenizer)
            facts["flagged"] = [row for part in parts.values() for row in clean.flagged(config.clean, part)]
            facts["mended"] = counted["mended"]
            facts["notes"] = clean.notes(config.clean, list(parts.values()))
            log.info(ledger.data_line(facts))
            for note in facts["notes"]:
                log.info(f"data: {note}")
            if tokenizer is not None and len(parts["train"]):
                # datasets cannot read back what holds no row
                kept = datasets.DatasetDict({name: part for name, part in parts.items() if len(part)})
                kept.save_to_disk(folder / "encoded.partial")
                durable.place(folder / "encoded.partial", folder / "encoded")
                parts = _encoded(folder)
        folder.write("data.json", facts)
    finally:
        shutil.rmtree(preparing, ignore_errors=True)
    return parts


def _each(
    parts: list[datasets.Dataset],
    rejected: list[dict[str, Any]],
    stage: Callable[[datasets.Dataset], tuple[datasets.Dataset, list[dict[str, Any]]]],
) -> list[datasets.Dataset]:
    """The stage done to each part; what it rejects is added to `rejected`."""
    done = []
    for part in parts:
        kept, dropped = stage(part)
        done.append(kept)
        rejected += dropped
    return done


def _left_out(section: DatasetSection, sources: list[dict[str, Any]]) -> list[str]:
    """The columns that are not used, those to be ignored excepted."""
    ignored = {*section.ignore_columns, *(name for source in section.sources for name in source.ignore_columns)}
    return [name for facts in sources for name in facts["unused"] if name not in ignored]


def _source_line(facts: dict[str, Any]) -> str:
    unused = f", not used: {', '.join(facts['unused'])}" if facts["unused"] else ""
    not_drawn = f", {facts['not_drawn']} not drawn" if facts.get("not_drawn") else ""
    pair = f"{facts['question']} -> {facts['answer']}"
    return f"load: {facts['rows']} rows of {facts['source']}{not_drawn}, {pair}{unused}"


def measure(config: Config, folder: RunFolder, here: machine.Machine) -> None:
    """Metrics and answers of the tuned model, and of the base model beside it; process 0 writes them down."""
    test = _encoded(folder)["test"]
    settings = _settings(config)
    metrics: dict[str, Any] = {"settings": settings, "model": {}, "base": {}}
    answers: dict[str, Any] = {"model": [], "base": []}
    before = _measured_before(folder, settings, here)
    with _phase(folder, "evaluate", here.rank):
        for name in ("model", "base") if len(test) else ():
            if name not in before:
                before[name] = evaluate.evaluate(config.evaluate, config.seed, folder / name, test, here, name)
                if here.rank == 0:
                    folder.write("measured.json", {"settings": settings, "of": before})
            metrics[name], answers[name] = before[name]
    if here.rank > 0:
        return
    metrics["gate"] = gate.check(config.evaluate, metrics["model"], metrics["base"])
    folder.discard("metrics.json")  # which says that answers.json belongs to it
    folder.write("answers.json", answers)
    folder.write("metrics.json", metrics)
    folder.discard("measured.json")
    log.info("evaluate:\n" + report.summary(metrics, answers))


def deliver(config: Config, folder: RunFolder, here: machine.Machine) -> str:
    """Report, gate, card, and the way out; the sentence that says where the model is."""
    config = folder.pinned()
    with _phase(folder, "report"):
        report.report(folder.path, config)
        publish.assemble(folder.path, config)
    gate.refuse(folder.read("metrics.json")["gate"], folder / "model")
    answered = [row["question"] for row in folder.read("answers.json")["model"]]
    # without test rows the training rows have to do: the question is only whether both places answer alike
    samples = (answered or _encoded(folder)["train"]["question"][:])[:5]
    with _phase(folder, "publish"):
        published = publish.publish(
            config.publish,
            folder / "model",
            samples,
            lambda path, questions: evaluate.answer(path, questions, here),
        )
    folder.write("published.json", published)
    report.report(folder.path, config)
    return publish.sentence(published, folder / "model")


def _encoded(folder: RunFolder) -> datasets.DatasetDict:
    parts = datasets.load_from_disk(folder / "encoded")
    return datasets.DatasetDict(train=parts["train"], test=parts.get("test", parts["train"].select([])))


@contextmanager
def _finished(config: Config) -> Iterator[tuple[RunFolder, machine.Machine]]:
    client.configure(config.publish.timeout_seconds)
    folder = RunFolder(config)
    if not (folder / "model").exists():
        raise DataError(f"output: {folder.path} holds no trained model; expected one left by `python -m job run`")
    with folder.held():
        folder.claim(local_data(config.dataset, folder.finished()))
        prepare(config, folder)  # what was removed to be made anew
        folder.pin()
        yield folder, machine.detect(config.train.device, config.train.precision)


def _preflight(config: Config, folder: RunFolder) -> None:
    """A run that goes on needs the Hub at its end only: one that is down now does not hold it up."""
    try:
        publish.preflight(config, there(config.dataset))
    except PublishError as error:
        if not folder.has_trained():
            raise
        log.warning(f"publish: {error}; going on, since training had begun")


def _to_measure(config: Config, folder: RunFolder, here: machine.Machine) -> bool:
    """Whether no metrics with these settings are there. All processes look before any goes on."""
    metrics: dict[str, Any] | None = folder.read("metrics.json")
    settings = _settings(config)
    here.wait()
    return metrics is None or metrics["settings"] != settings


def _settings(config: Config) -> dict[str, Any]:
    """All that the metrics depend on, beside the models and the rows."""
    return {**config.evaluate.model_dump(mode="json"), "max_new_tokens": config.model.max_new_tokens}


def _measured_before(folder: RunFolder, settings: dict[str, Any], here: machine.Machine) -> dict[str, Any]:
    """What an evaluation that was broken off had finished: metrics and answers of a model, by its name."""
    found: dict[str, Any] = folder.read("measured.json") or {}
    here.wait()
    return dict(found["of"]) if found.get("settings") == settings else {}


def _summary(metrics: dict[str, Any]) -> str:
    names = [name for name in ("loss", "f1", "exact_match") if name in metrics["model"]]
    tuned, base = metrics["model"], metrics["base"]
    return ", ".join(f"{name} {shown(tuned[name], '.3f')} (base {shown(base[name], '.3f')})" for name in names)


@contextmanager
def _phase(folder: RunFolder, name: str, rank: int = 0) -> Iterator[None]:
    """Note how long a phase took, for the report."""
    started = time.monotonic()
    yield
    if rank == 0:
        seconds = folder.read("phases.json") or {}
        folder.write("phases.json", {**seconds, name: round(time.monotonic() - started, 2)})
