"""Search facts: the typed record of a search for settings, as search.json holds it.

The search adds a trial to it as soon as it is finished, so that an interrupted search goes on behind it. The record
does not know how a trial is made or shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Trial:
    """A training on a part of the training rows, measured on rows that were held back."""

    learning_rate: float
    epochs: int
    rows: int
    """Rows that it trained on."""
    loss: float | None = None
    """Of the held-back rows; None if the training diverged."""
    score: float | None = None
    """Of the held-back rows, in `SearchFacts.metric`; None if it was not measured."""
    seconds: float = 0.0
    """Of the whole trial."""
    training_seconds: float = 0.0
    """Of its steps alone."""
    score_seconds: float = 0.0
    """That `score` took."""


@dataclass(frozen=True)
class DecodingTrial:
    """The answers of one trained model, decoded with some settings."""

    settings: Mapping[str, int | float]
    """Of the generation config; none: greedy."""
    score: float
    """F1 of the answers to the held-back rows."""


@dataclass(frozen=True)
class SearchFacts:
    """What a search has tried and what it chose."""

    minutes: float
    """The budget, `train.search_minutes`."""
    metric: str
    """What `Trial.score` is: f1 or mrr_at_10."""
    rows: int
    """Training rows that a trial may take."""
    held_back: int
    """Training rows that no trial trains on; they measure it."""
    row_seconds: float
    """Seconds to train a row once, as measured before the first trial."""
    start_seconds: float
    """Seconds of a trial besides its steps, as measured before the first trial."""
    asked: list[str] = field(default_factory=list)
    """The config keys that are searched for."""
    trials: list[Trial] = field(default_factory=list)
    decodings: list[DecodingTrial] = field(default_factory=list)
    finished: bool = False
    learning_rate: float | None = None
    """The chosen one, or the config's; None while the search goes on. So are `epochs` and `decoding`."""
    epochs: int | None = None
    decoding: Mapping[str, int | float] | None = None
    """None also if the config's holds."""
    notes: list[str] = field(default_factory=list)
    """Sentences about what limits the result."""

    @property
    def seconds(self) -> float:
        """Seconds of all trials."""
        return sum(trial.seconds for trial in self.trials)

    @property
    def chosen(self) -> Trial | None:
        """The last trial with the chosen settings; None if there is none."""
        same = [
            trial
            for trial in self.trials
            if (trial.learning_rate, trial.epochs) == (self.learning_rate, self.epochs) and trial.loss is not None
        ]
        return max(same, key=lambda trial: trial.rows, default=None)
