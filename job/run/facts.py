"""The facts of a run: what each stage found out, as typed records.

Stages hand them on; report, model card and templates take them; `fact_files` keeps them in the run folder. They know
neither how a fact was found nor how it is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from job.run.row_facts import Closest, Cluster, Conflict, Doubtful, Rendered, Row


@dataclass(frozen=True)
class Source:
    """A file or a Hub data set, and what was read of it."""

    source: str
    """Path, or the data set's name on the Hub."""
    question: str
    answer: str
    unused: list[str]
    """Columns that were left out."""
    rows: int
    sha256: str | None = None
    """Of a file."""
    revision: str | None = None
    """Commit of a Hub data set."""
    config: str | None = None
    split: str | None = None
    not_drawn: int | None = None
    """Rows that its weight left out; None where the weight is 1."""


@dataclass(frozen=True)
class RejectedCounts:
    rejected: int
    rejected_by_stage: dict[str, int]
    rejected_by_reason: dict[str, int]
    """Keys are "stage: reason", without what is particular to one row; the commonest first."""
    examples: dict[str, list[Row]]
    """For each of these keys at most 20 rows."""


@dataclass(frozen=True)
class DataFacts:
    """What became of the rows. rows = train + test + rejected."""

    rows: int
    train: int
    test: int
    rejected: int
    rejected_by_stage: dict[str, int]
    rejected_by_reason: dict[str, int]
    examples: dict[str, list[Row]]
    clusters: list[Cluster]
    """The largest first, at most 20, each with at most 20 victims."""
    conflicts: list[Conflict]
    doubtful: list[Doubtful]
    closest: Closest | None
    lengths: dict[str, dict[str, int]]
    """Of the rows trained and tested: {"tokens": {"n": rows}, "question_characters": ..., "answer_characters": ...};
    characters in steps of 10, tokens exact; no tokens where no tokenizer was at hand."""
    rendered: list[Rendered]
    sources: list[Source]
    settings: dict[str, Any]
    """The sections dataset, clean, dedupe and split of the config, and seed."""
    flagged: list[Row]
    """Kept, for a person to judge."""
    mended: int
    """Answers whose end-of-text mark was removed."""
    notes: list[str]
    """Sentences that a person should read."""


@dataclass(frozen=True)
class BaseFacts:
    """The base model in the run folder."""

    base: str
    """Hub id or path."""
    revision: str | None
    """Commit on the Hub."""
    checkpoint: str | None
    """The checkpoint of an earlier run whose weights it has."""
    parameters: int
    context: int | None
    """Longest text in tokens; None if it has no bound."""
    chat_template: str
    """Whose template it is."""
    template_date: str | None
    """The date that the template is fixed to, where it asks for one."""
    weights: str | None
    """Hash of the weights' files; None if an earlier version fetched it."""


@dataclass(frozen=True)
class TrainingFacts:
    history: Sequence[Mapping[str, int | float | None]]
    """Points of the loss curves: step and train_loss or test_loss, with learning_rate and grad_norm."""
    steps: int
    skipped_steps: int
    rows_per_step: int
    forward_rows: int
    """Rows of one process in one forward pass."""
    tokens: int
    trained_tokens: int
    seconds: float
    tokens_per_second: float
    precision: str
    device: str
    processes: int
    answer_only_logits: bool
    peak_gib: float
    encoded: dict[str, str] | None = None
    """Hash of the encoded rows of each part, by which rows that were prepared anew are compared."""


@dataclass(frozen=True)
class ModelMetrics:
    """One model on the test rows. A number that is None after a measurement is no finite number."""

    loss: float | None
    """Mean over the answer tokens, in nats."""
    perplexity: float | None
    token_accuracy: float
    rows: int
    f1: float | None = None
    exact_match: float | None = None
    ended: float | None = None
    """Share of the answers that ended by themselves."""
    answered_rows: int | None = None
    """Rows answered by generation; None if there were none."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """95 % intervals by metric."""
    interval_kinds: dict[str, str] = field(default_factory=dict)
    """"Wilson" or "bootstrap" by metric."""

    def was_measured(self, metric: str) -> bool:
        """Whether the metric was looked for at all."""
        return metric in ("loss", "perplexity", "token_accuracy") or self.answered_rows is not None

    def value(self, metric: str) -> float | None:
        found: float | None = getattr(self, metric)
        return found


@dataclass(frozen=True)
class Gate:
    metric: str
    passed: bool
    value: float | None = None
    """None if there was nothing to compare."""
    needed: float | None = None
    rule: str = field(kw_only=True)


@dataclass(frozen=True)
class Metrics:
    """metrics.json, which is published. A model without metrics was not measured: there was no test row."""

    settings: dict[str, Any]
    """All that the numbers depend on, beside the models and the rows."""
    model: ModelMetrics | None
    base: ModelMetrics | None
    gate: Gate


@dataclass(frozen=True)
class Answer:
    where: str
    question: str
    expected: str
    answer: str
    f1: float
    ended: bool


@dataclass(frozen=True)
class Answers:
    model: list[Answer]
    base: list[Answer]


@dataclass(frozen=True)
class Measured:
    """The models that an evaluation had measured before it was interrupted."""

    settings: dict[str, Any]
    of: dict[str, tuple[ModelMetrics, list[Answer]]]


@dataclass(frozen=True)
class Published:
    folder: str | None = None
    repo: str | None = None
    revision: str | None = None
    """The commit's sha."""
    url: str | None = None


@dataclass(frozen=True)
class Resolved:
    """What a run's branches, tags and base led to."""

    config: dict[str, Any] | None = None
    base_weights: str | None = None


@dataclass(frozen=True)
class Asked:
    """What a run was called with."""

    config: dict[str, Any]
    files: dict[str, dict[str, str]]
    """For each key of the config that names local files: their paths and SHA-256."""
    resolved: Resolved
    version: int
    """`fact_files.VERSION` of the code that began the run."""
