"""Prepare: puts the rows and the base model of a run into its run folder.

`prepare_only` is the command for the data alone. It knows what a run folder already holds. It does not know how rows
and base are made; `data.stages` and `model.base` do.
"""

import logging
from functools import cache, partial

import datasets
from transformers import PreTrainedTokenizerBase

from job.config.schema import Config
from job.data import encode, grounded, ledger, pairs, stages, unknown
from job.data.local_files import local_data
from job.errors import DataError
from job.hub import client
from job.model import base, encoder_base
from job.model.ground import SETTINGS
from job.report import report
from job.retrieval import ground_base
from job.retrieval.grounding import Grounding
from job.run.facts import DataFacts, TrainingFacts
from job.run.folder import RunFolder
from job.run.machine import Machine, detect
from job.run.retriever_facts import GroundFacts, UnknownQuestions
from job.training import origin

log = logging.getLogger(__name__)


def prepare_only(config: Config) -> str:
    """Prepare the data alone, without a model: counts, rejected rows and the report.

    Args:
        config: of the run.

    Returns:
        A sentence with the counts and the path of the report.

    Raises:
        DataError: the data cannot be read, or no row is left to train on.
    """
    client.configure(config.publish.timeout_seconds)
    folder = RunFolder(config)
    with folder.lock():
        folder.open(local_data(config.dataset, folder.finished_request()))
        if folder.read(DataFacts) is None:
            _read_unknown(config, folder)
            find_tokenizer, require_same = partial(_find_tokenizer, folder), partial(_require_same_rows, folder)
            rows, choose = _row_encoder(config, folder)
            stages.prepare(folder.preparation_config(), folder, find_tokenizer, require_same, rows, choose)
        folder.pin()
        report.report(folder.path, folder.pinned_config())
        facts = folder.require(DataFacts)
        stages.require_train_rows(facts, folder)
        return f"prepared: {ledger.data_line(facts)[6:]}; see {folder / 'report.html'}"


def prepare(config: Config, folder: RunFolder) -> None:
    """Prepare the data set and the base model of a run, unless its folder holds them already.

    Args:
        config: of the run.
        folder: of the run.

    Raises:
        ConfigError: the base model cannot work, or a column that the config names is missing.
        DataError: the data cannot be read, or too few rows are left.
    """
    _read_unknown(config, folder)
    if folder.is_prepared():
        log.info(f"data: already prepared in {folder.path}")
    else:
        stages.prepare(
            folder.preparation_config(),
            folder,
            partial(_fetch_base, folder),
            partial(_require_same_rows, folder),
            *_row_encoder(config, folder),
        )
    facts = folder.require(DataFacts)
    stages.require_train_rows(facts, folder)
    stages.require_test_rows(facts, config, folder)


def _find_tokenizer(folder: RunFolder) -> PreTrainedTokenizerBase | None:
    section = folder.preparation_config().model
    if section.ground is not None and not (folder / "base" / SETTINGS).exists():
        return None  # lengths depend on the retriever's rows, which are not here yet
    find = encoder_base.find_tokenizer if section.kind == "retriever" else base.find_tokenizer
    return find(section, folder / "base")


def _fetch_base(folder: RunFolder) -> PreTrainedTokenizerBase:
    config, before = folder.preparation_config(), folder.trained_base_weights()
    with folder.phase("base", "fetching and testing the base model"):
        if config.model.kind == "retriever":
            facts = encoder_base.fetch(config.model, config.retriever, folder / "base", before)
        else:
            facts = base.fetch(config.model, folder / "base", before)
    template = f", chat template: {facts.chat_template}" if facts.chat_template else ""
    log.info(f"base: {facts.base}, {facts.parameters / 1e6:.1f}M parameters{template}")
    tokenizer = base.load_tokenizer(folder / "base")
    if config.model.ground is not None:
        _fetch_ground(folder, tokenizer)
    return tokenizer


def _fetch_ground(folder: RunFolder, tokenizer: PreTrainedTokenizerBase) -> None:
    """Fetch the retriever of model.ground beside the base, unless it is there."""
    config, before = folder.preparation_config(), folder.read(GroundFacts)
    if before is not None and (folder / "base" / SETTINGS).exists():
        return
    trained = before.weights if before is not None and folder.has_trained_work() else None
    with folder.phase("ground", "fetching and testing the retriever"):
        facts = ground_base.fetch(config.model, folder / "base", tokenizer, _machine(config), trained)
        folder.write(facts)
    log.info(f"ground: {facts.retriever}, {config.model.ground_rows} rows in a prompt")


def _machine(config: Config) -> Machine:
    return detect(config.train.device, config.train.precision)


def _row_encoder(config: Config, folder: RunFolder) -> tuple[stages.EncodeRows, stages.ChooseForms | None]:
    """Choose how rows become tokens: as prompt and answer, with retrieved rows, or as the two texts of a retriever."""
    if config.model.kind == "retriever":
        return partial(pairs.encode, find_prompts=lambda: pairs.read_prompts(config.retriever, folder / "base")), None
    if config.model.ground is None:
        return encode.encode, None
    opened = cache(lambda: Grounding(folder / "base", _machine(config)).library())
    rows = partial(grounded.encode, open_library=opened, misses=config.model.ground_misses, seed=config.seed)
    return rows, grounded.choose


def _read_unknown(config: Config, folder: RunFolder) -> None:
    """Read the questions of retriever.unknown before anything is paid for.

    A finished run whose files are gone keeps the questions it has.
    """
    if config.retriever.unknown is None:
        return
    names = [config.retriever.unknown] if isinstance(config.retriever.unknown, str) else config.retriever.unknown
    before = folder.read(UnknownQuestions)
    try:
        folder.write(UnknownQuestions(unknown.read_questions(names), names))
    except DataError as error:
        if not folder.is_trained() or before is None or before.names != names:
            raise
        log.warning(f"{error}; continuing with the {len(before.questions)} questions that were read before")


def _require_same_rows(folder: RunFolder, parts: datasets.DatasetDict) -> None:
    if folder.is_trained():
        origin.require_same(folder.read(TrainingFacts), parts, str(folder.path))
