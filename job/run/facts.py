"""Facts: typed records of what each stage of a run found.

Stages pass them on, `fact_files` stores them in the run folder, and report, model card and templates show them. The
records do not know how a fact was found or how it is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from job.run.confidence_facts import Confidence
from job.run.row_facts import Closest, Cluster, Conflict, Doubtful, Rendered, Row


@dataclass(frozen=True)
class Source:
    """A file or a data set on the Hub, and what was read from it."""

    source: str
    """Path, or the data set's name on the Hub."""
    question: str
    answer: str
    unused: list[str]
    """Columns that were not read."""
    rows: int
    sha256: str | None = None
    """Of the file; None for a data set on the Hub."""
    revision: str | None = None
    """Commit of the data set on the Hub; None for a file."""
    config: str | None = None
    split: str | None = None
    not_drawn: int | None = None
    """Rows that sampling by the source's weight left out; None where the weight is 1."""


@dataclass(frozen=True)
class RejectedCounts:
    """How many rows were rejected, by stage and by reason."""

    rejected: int
    rejected_by_stage: dict[str, int]
    rejected_by_reason: dict[str, int]
    """{"stage: reason": rows}, the reason without what is particular to one row; the most frequent first."""
    examples: dict[str, list[Row]]
    """At most 20 rows for each key of `rejected_by_reason`."""


@dataclass(frozen=True)
class DataFacts:
    """What happened to the rows: rows = train + test + rejected."""

    rows: int
    train: int
    test: int
    rejected: int
    rejected_by_stage: dict[str, int]
    rejected_by_reason: dict[str, int]
    examples: dict[str, list[Row]]
    clusters: list[Cluster]
    """At most 20 clusters, the largest first, each with at most 20 of its victims."""
    conflicts: list[Conflict]
    doubtful: list[Doubtful]
    closest: Closest | None
    lengths: dict[str, dict[str, int]]
    """Histograms over the rows trained and tested: {"tokens": {"n": rows}, "question_characters": ...,
    "answer_characters": ...}. Tokens are exact, characters in bins of 10; no tokens if no tokenizer was available."""
    rendered: list[Rendered]
    sources: list[Source]
    settings: dict[str, Any]
    """The sections dataset, clean, dedupe and split of the config, and seed."""
    flagged: list[Row]
    """Rows that were kept but need a person's judgement."""
    mended: int
    """Answers from which an end-of-sequence token was removed."""
    notes: list[str]
    """Sentences that the user should read."""
    made: int = 0
    """Rows made from the training rows, in other wordings; not among `rows`, nor `train`."""
    made_examples: list[Row] = field(default_factory=list)
    """At most 20 of them; the reason names the row that a row was made from."""


@dataclass(frozen=True)
class BaseFacts:
    """The base model, as it lies in the run folder."""

    base: str
    """Hub id or path."""
    revision: str | None
    """Commit on the Hub."""
    checkpoint: str | None
    """The checkpoint of an earlier run that its weights were loaded from."""
    parameters: int
    context: int | None
    """Longest sequence in tokens; None if unlimited."""
    chat_template: str
    """Whose template it is: "Kickoff's" or "the base model's own"."""
    template_date: str | None
    """The date that was written into the template, if it asks for the current one."""
    weights: str | None
    """Hash of the safetensors files; None if an earlier version of Kickoff fetched them."""


@dataclass(frozen=True)
class TrainingFacts:
    """How the training went."""

    history: Sequence[Mapping[str, int | float | None]]
    """Points of the loss curves: {"step", "train_loss" or "test_loss", "learning_rate", "grad_norm"}."""
    steps: int
    skipped_steps: int
    rows_per_step: int
    forward_rows: int
    """Rows in one forward pass of one process."""
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
    """{part: hash of its encoded rows}, to compare with rows that are prepared again."""
    kept_step: int | None = None
    """The step whose weights are the model; None if an earlier version of Kickoff trained it: the last one."""
    kept_epoch: int | None = None
    """The epoch of that step, from 1."""
    kept_loss: float | None = None
    """The test loss after that step; None if there were no test rows."""
    stopped_early: bool = False
    """Whether `train.patience` ended the training before its last step; `steps` counts those that were taken."""


@dataclass(frozen=True)
class ModelMetrics:
    """The metrics of one model on the test rows. A measured value that is None was NaN or infinite."""

    loss: float | None
    """Mean cross-entropy of the answer tokens, in nats per token."""
    perplexity: float | None
    token_accuracy: float | None
    """None for a retriever, which writes no tokens; so are loss and perplexity then."""
    rows: int
    f1: float | None = None
    exact_match: float | None = None
    ended: float | None = None
    """Fraction of the generated answers that ended with an end-of-sequence token."""
    answered_rows: int | None = None
    """Rows for which an answer was generated or found; None if there were none."""
    recall_at_1: float | None = None
    """Fraction of the test questions whose own answer a retriever ranks first."""
    recall_at_5: float | None = None
    mrr_at_10: float | None = None
    """Mean of 1 / rank of the own answer; 0 beyond the tenth."""
    auroc: float | None = None
    """How often a test question has a higher confidence than an unknown one, of all such pairs."""
    threshold: float | None = None
    """Confidence below which the retriever does not know; None for BM25."""
    answered: float | None = None
    """Fraction of the test questions at or above the threshold; of a grounded generator without those of which it says
    itself that it does not know."""
    answered_rightly: float | None = None
    """Fraction of the test questions that are answered as expected."""
    unknown_answered: float | None = None
    """Fraction of the unknown questions that are answered, each of them wrongly."""
    unknown_rows: int | None = None
    answer_seconds: float | None = None
    """Seconds that it took to answer; None if nothing was, or an earlier version of Kickoff measured."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """{metric: (low, high)}, 95 % confidence intervals."""
    interval_kinds: dict[str, str] = field(default_factory=dict)
    """{metric: "Wilson" or "bootstrap"}."""

    def was_measured(self, metric: str) -> bool:
        """Return whether the metric was measured, even if its value is not finite."""
        if metric in ("loss", "perplexity", "token_accuracy"):
            return self.token_accuracy is not None
        if metric == "ended":
            return self.ended is not None
        if metric in ("f1", "exact_match"):
            return self.answered_rows is not None
        return getattr(self, metric, None) is not None

    def value(self, metric: str) -> float | None:
        """Return the metric of that name; None if it was not measured or is not finite."""
        value: float | None = getattr(self, metric)
        return value


@dataclass(frozen=True)
class Gate:
    """The quality gate's decision."""

    metric: str
    passed: bool
    value: float | None = None
    """The tuned model's metric; None if there was nothing to compare."""
    needed: float | None = None
    rule: str = field(kw_only=True)


@dataclass(frozen=True)
class Metrics:
    """metrics.json, which is published. A model is None if it was not measured because there was no test row."""

    settings: dict[str, Any]
    """All settings that the metrics depend on, besides the models and the rows."""
    model: ModelMetrics | None
    base: ModelMetrics | None
    gate: Gate
    bm25: ModelMetrics | None = None
    """Of BM25 on the same rows, beside a retriever."""
    confidence: Confidence | None = None
    """Of a generator's answers; None if it could not be calibrated."""


@dataclass(frozen=True)
class Answer:
    """A test question with the expected answer and one model's."""

    where: str
    question: str
    expected: str
    answer: str
    f1: float
    ended: bool
    confidence: float | None = None
    """Of a retriever, also of the one that a generator is grounded in: the cosine of the question and the best row."""
    probability: float | None = None
    """Of a generator: the mean probability of the answer's tokens; None if there was no room for one."""


@dataclass(frozen=True)
class Answers:
    """Both models' answers to the same test questions, in the same order."""

    model: list[Answer]
    base: list[Answer]
    bm25: list[Answer] = field(default_factory=list)
    """BM25's beside a retriever."""


@dataclass(frozen=True)
class Measured:
    """What an interrupted evaluation had measured: {model's name: (metrics, answers)}."""

    settings: dict[str, Any]
    of: dict[str, tuple[ModelMetrics, list[Answer]]]


@dataclass(frozen=True)
class Published:
    """Where the model was published."""

    folder: str | None = None
    repo: str | None = None
    revision: str | None = None
    """The commit's sha."""
    url: str | None = None


@dataclass(frozen=True)
class Resolved:
    """The config with branches and tags resolved to commits, and the hash of the base's weights."""

    config: dict[str, Any] | None = None
    base_weights: str | None = None


@dataclass(frozen=True)
class RunRequest:
    """The config that a run was called with, and the local files it named (asked.json)."""

    config: dict[str, Any]
    files: dict[str, dict[str, str]]
    """For each config key that names local files: {path: SHA-256}."""
    resolved: Resolved
    version: int
    """`fact_files.VERSION` of the code that started the run."""
