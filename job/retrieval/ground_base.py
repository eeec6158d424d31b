"""Ground base: fetches the retriever that a generator is grounded in, and tests it.

It knows the files of a published retriever and the folder of a generator. It does not know questions.
"""

import shutil
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from job.config.schema import ModelSection
from job.data.control_tokens import ControlTokens
from job.errors import ConfigError, DataError
from job.model import base, source
from job.model.ground import FOLDER, SETTINGS
from job.retrieval import index as indexes
from job.retrieval.index import Index
from job.retrieval.retriever import Retriever
from job.run import durable
from job.run.machine import Machine
from job.run.messages import one_line
from job.run.retriever_facts import GroundFacts

VERSION = 1
NEEDED = (*indexes.FILES, "modules.json", "config.json", "tokenizer.json")
_SAMPLES = 8
_SAME = 0.999
"""Least cosine of a published vector with the one that the encoder makes here."""


def fetch(
    section: ModelSection,
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    machine: Machine,
    before: str | None = None,
) -> GroundFacts:
    """Fetch the retriever of model.ground into the base's folder, and test it.

    Args:
        section: The config's model section.
        folder: Of the base.
        tokenizer: The base's.
        machine: To compute with.
        before: Hash of the retriever's weights and vectors that a model was trained with; None for any.

    Returns:
        The facts of the retriever.

    Raises:
        ConfigError: There is no such retriever, or it cannot be used.
        DataError: It is another one than `before`, or one of its rows holds a control token of the base.
        KickoffError: The Hub did not answer; a retry may help.
    """
    name = str(section.ground)
    wanted = section.model_copy(update={"base": name, "revision": section.ground_revision})
    found, revision = source.locate(wanted, _select, key="ground")
    for unfinished in (folder / f"{FOLDER}.partial", folder / FOLDER):
        shutil.rmtree(unfinished, ignore_errors=True)
    partial = folder / f"{FOLDER}.partial"
    shutil.copytree(found, partial, ignore=shutil.ignore_patterns(".cache", ".git*", ".DS_Store"))
    _require_usable(name, partial, tokenizer, machine)
    facts = GroundFacts(name, revision, base.hash_weights(partial))
    if before not in (None, facts.weights):
        shutil.rmtree(partial)
        raise DataError(
            f"output: {folder.parent} was trained with another retriever than {name} is now; restore it, or choose "
            "another output"
        )
    durable.replace(partial, folder / FOLDER)
    durable.write(folder / SETTINGS, durable.as_json({"version": VERSION, "rows": section.ground_rows}))
    return facts


def _select(folder: Path, names: set[str]) -> list[str]:
    """Choose all files of a published retriever; refuse any other folder or repository."""
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise ConfigError(
            f"model.ground: expected a retriever that Kickoff published, found no {', '.join(missing)} in {folder}; "
            "train one with model.kind=retriever"
        )
    return sorted(names)


def _require_usable(name: str, folder: Path, tokenizer: PreTrainedTokenizerBase, machine: Machine) -> None:
    """Require that the retriever loads, made its vectors itself, and has no row that the base reads as control."""
    try:
        index, retriever = indexes.read(folder), Retriever(folder, machine)
        indexes.read_settings(folder)
        cosine = _least_cosine(index, retriever)
    except Exception as error:  # a damaged file may make a library raise anything
        base.reraise_unrelated(error)
        raise ConfigError(f"model.ground: {name} cannot be loaded: {one_line(error)}; publish it again") from None
    if not cosine >= _SAME:
        raise ConfigError(
            f"model.ground: the vectors of {name} were made by another encoder (cosine {cosine:.4f}, expected at "
            f"least {_SAME}); publish it again"
        )
    control = ControlTokens(tokenizer)
    for source_, *texts in zip(index.entries.sources, index.entries.questions, index.entries.answers, strict=True):
        token = next((token for text in texts if text and (token := control.first_in(text))), None)
        if token is not None:
            raise DataError(
                f"model.ground: the row {source_} of {name} holds {token}, which the base reads as a control token; "
                "publish the retriever without it"
            )


def _least_cosine(index: Index, retriever: Retriever) -> float:
    """Encode some rows again, and compare them with their published vectors."""
    rows = np.unique(np.linspace(0, len(index.entries.answers) - 1, _SAMPLES).astype(int))
    made = retriever.encode_answers([index.entries.answers[row] for row in rows])
    return float((made * index.answers[rows]).sum(axis=1).min())
