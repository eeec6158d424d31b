"""Conflicts: keys of a config that are valid alone and contradict each other.

It knows the sections of a config. It knows neither YAML nor the line of a key.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from job.config.yaml_file import KeyPath, dotted_key

if TYPE_CHECKING:
    from job.config.schema import CleanSection, Config, DatasetSection, SourceSection

GENERATED: frozenset[str] = frozenset({"f1", "exact_match", "ended"})
"""The metrics that need generated answers, which `evaluate.generate_rows: 0` turns off."""
RANKED: frozenset[str] = frozenset({"recall_at_1", "recall_at_5", "mrr_at_10"})
"""The metrics of a retriever alone."""
TEACHER_FORCED: frozenset[str] = frozenset({"loss", "perplexity", "token_accuracy", "ended"})
"""The metrics of a generator alone."""

_OF_A_GENERATOR = (
    ("model", "chat_template"), ("model", "max_new_tokens"), ("model", "ground"), ("model", "ground_revision"),
    ("model", "ground_rows"), ("model", "ground_misses"), ("train", "word_dropout"),
    ("evaluate", "min_confidence"), ("model", "decoding"),
)  # fmt: skip
"""Keys without effect beside a retriever; run.yaml writes out their defaults."""


def find_conflicts(config: "Config") -> Iterator[tuple[KeyPath, str]]:
    """Find the keys that contradict each other.

    Args:
        config: valid by its schema.

    Yields:
        The path of a key, and what is wrong with it and what to do, to follow the key's name.
    """
    dataset, publish = config.dataset, config.publish
    if not dataset.sources or dataset.file is not None or dataset.name is not None:
        yield from _check_source(("dataset",), dataset, ", or `sources:` for several")
    for number, source in enumerate(dataset.sources):
        yield from _check_source(("dataset", "sources", number), source, "")
        yield from _check_columns(("dataset", "sources", number), source)
        yield from _check_pair(("dataset", "sources", number), source, dataset)
    yield from _check_columns(("dataset",), dataset)
    if not dataset.sources or dataset.test is not None:  # else the sources may complete what it names
        yield from _check_pair(("dataset",), dataset, dataset)
    if dataset.test == []:
        yield ("dataset", "test"), "is an empty list; name a file, or remove it for a split"
    yield from _check_lengths(config.clean)
    for key in _hub_keys(dataset) if dataset.sources else ():
        yield ("dataset", key), "is set together with dataset.sources; set it in the source that it is for"
    if dataset.test is not None and config.split.folds is not None:
        yield ("split", "folds"), "is set, and dataset.test gives the test rows; remove one of the two"
    if dataset.test is not None and config.split.group is not None:
        yield (
            ("split", "group"),
            "is set, and dataset.test gives the test rows; nothing is split, so remove one of the two",
        )
    if config.split.fold > (config.split.folds or 1):
        yield ("split", "fold"), f"is {config.split.fold}, and split.folds is {config.split.folds or 'not set'}"
    yield from _check_kind(config)
    yield from _check_keep(config)
    yield from _check_search(config)
    yield from _check_evaluate(config)
    for key in ("branch", "tag"):
        if getattr(publish, key) and not publish.repo:
            yield ("publish", key), "is set without publish.repo; name the repository or remove it"


def _check_evaluate(config: "Config") -> Iterator[tuple[KeyPath, str]]:
    evaluate = config.evaluate
    if config.model.kind == "generator" and evaluate.gate in GENERATED and evaluate.generate_rows == 0:
        yield (
            ("evaluate", "gate"),
            f"is {evaluate.gate}, which needs generated answers, and evaluate.generate_rows is 0; "
            "set it above 0 or gate on loss",
        )
    if config.model.kind == "generator" and evaluate.min_confidence is not None and evaluate.generate_rows == 0:
        yield (
            ("evaluate", "min_confidence"),
            "is set, and evaluate.generate_rows is 0, so no answer tells how sure the model may be; set it above 0",
        )
    if evaluate.gate == "off" and evaluate.gate_threshold is not None:
        yield ("evaluate", "gate_threshold"), "is set, and evaluate.gate is off; name a metric or remove it"


def _check_lengths(clean: "CleanSection") -> Iterator[tuple[KeyPath, str]]:
    for text in ("question", "answer"):
        minimum, maximum = (getattr(clean, f"{end}_{text}_characters") for end in ("min", "max"))
        if maximum is not None and minimum > maximum:
            yield (
                ("clean", f"min_{text}_characters"),
                f"is {minimum}, above clean.max_{text}_characters, {maximum}, so every row would be rejected; "
                "swap them",
            )


def _check_columns(path: KeyPath, section: "DatasetSection | SourceSection") -> Iterator[tuple[KeyPath, str]]:
    """A column cannot be both read and ignored, or both question and answer."""
    for key in ("question", "answer"):
        if getattr(section, key) in section.ignore_columns:
            yield (*path, "ignore_columns"), f"holds {getattr(section, key)!r}, which {dotted_key((*path, key))} reads"
    if section.question is not None and section.question == section.answer:
        yield (*path, "answer"), f"is {section.answer!r}, the column of the questions as well; name two columns"


def _check_pair(
    path: KeyPath, section: "DatasetSection | SourceSection", dataset: "DatasetSection"
) -> Iterator[tuple[KeyPath, str]]:
    """One column named without the other would be ignored. A source inherits missing names from dataset."""
    question, answer = (getattr(section, key) or getattr(dataset, key) for key in ("question", "answer"))
    if (question is None) != (answer is None):
        key = "question" if question else "answer"
        location = path if getattr(section, key) else ("dataset",)
        yield (*location, key), "is set alone; set both columns, question and answer, or neither"


def _hub_keys(section: "DatasetSection | SourceSection") -> list[str]:
    """The keys set that only a Hub data set has; a split of train is the default."""
    keys = [key for key in ("config", "revision") if getattr(section, key)]
    return keys + (["split"] if section.split != "train" else [])


def _check_keep(config: "Config") -> Iterator[tuple[KeyPath, str]]:
    if config.train.patience is not None and config.train.keep == "last":
        yield (
            ("train", "patience"),
            f"is {config.train.patience}, and train.keep is last: a training that ends early would keep weights with "
            "a higher test loss than earlier ones; set train.keep to best, or remove train.patience",
        )


def _check_search(config: "Config") -> Iterator[tuple[KeyPath, str]]:
    """Keys that a search cannot work with, and its budget where nothing is searched for."""
    asked, train = config.auto_keys(), config.train
    if not asked and train.search_minutes != type(train).model_fields["search_minutes"].default:
        yield (
            ("train", "search_minutes"),
            "is set, and nothing is searched for; set train.epochs, train.learning_rate or model.decoding to auto, or "
            "remove it",
        )
    if asked and config.model.ground is not None:
        section, _, key = asked[0].partition(".")
        yield (section, key), "is auto with model.ground, and a search retrieves no rows; set a value"
    tuned = [key for key in asked if key.startswith("train.")]
    if tuned and train.warmup_steps:
        yield (
            ("train", "warmup_steps"),
            f"is {train.warmup_steps}, and {tuned[0]} is auto: the search's trainings are shorter than the run's, and "
            "most of their steps would be the warm-up; remove it, or set a number instead of auto",
        )
    if train.epochs == "auto" and train.patience is not None:
        yield (
            ("train", "patience"),
            f"is {train.patience}, and train.epochs is auto, so two rules would decide when the training ends; remove "
            "one of the two",
        )


def _check_kind(config: "Config") -> Iterator[tuple[KeyPath, str]]:
    """Keys of one kind of model are no keys of the other."""
    kind, gate = config.model.kind, config.evaluate.gate
    others = RANKED if kind == "generator" else TEACHER_FORCED
    if gate in others:
        yield ("evaluate", "gate"), f"is {gate}, which is not measured of a {kind}; set it to auto"
    if kind == "generator":
        measured = {"unknown"} if config.model.ground is not None else set()
        for key in sorted(config.retriever.model_fields_set - measured):
            yield ("retriever", key), "is set, and model.kind is generator; remove it, or set model.kind to retriever"
        yield from _check_ground(config)
        return
    if config.model.gguf_file is not None:
        yield ("model", "gguf_file"), "is set, and model.kind is retriever, whose base is an encoder; remove it"
    for path in _OF_A_GENERATOR:
        section, key = getattr(config, path[0]), path[1]
        if getattr(section, key) != type(section).model_fields[key].default:
            yield path, "is set, and a retriever writes no answers, so it would have no effect; remove it"
    yield from _check_unknown(config)


def _check_ground(config: "Config") -> Iterator[tuple[KeyPath, str]]:
    """Keys of a grounded generator have no effect without a retriever."""
    yield from _check_unknown(config)
    for key in ("ground_revision", "ground_rows", "ground_misses"):
        if config.model.ground is None and getattr(config.model, key) != type(config.model).model_fields[key].default:
            yield ("model", key), "is set without model.ground; name a retriever, or remove it"
    if config.model.ground is not None and config.train.word_dropout:
        yield ("train", "word_dropout"), "is set with model.ground, whose exercises leave out words; remove it"


def _check_unknown(config: "Config") -> Iterator[tuple[KeyPath, str]]:
    if config.retriever.unknown == []:
        yield ("retriever", "unknown"), "is an empty list; name a file, or remove it"


def _check_source(
    path: KeyPath, section: "DatasetSection | SourceSection", alternative: str
) -> Iterator[tuple[KeyPath, str]]:
    """Rows come either from files or from the Hub, with no key for the other."""
    if section.file == []:
        yield (*path, "file"), "is an empty list; name a file, or remove it and set `name:` for a Hub data set"
    sources = getattr(section, "sources", ())
    if (section.file is None) == (section.name is None) or sources:
        names = {"file": section.file, "name": section.name, "sources": sources or None}
        named = [key for key, value in names.items() if value is not None]
        problem = f"both {' and '.join(named)} are set" if named else "neither file nor name is set"
        yield path, f"{problem}; expected one: `file:` for local files or `name:` for a Hub data set{alternative}"
    for key in _hub_keys(section) if section.file is not None else ():
        yield (*path, key), f"is for a Hub data set, and {dotted_key((*path, 'file'))} is set; remove one of the two"
