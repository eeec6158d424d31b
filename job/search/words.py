"""Words: what a search says of itself, in the log and in the report."""

from collections.abc import Mapping, Sequence

from job.run.search_facts import SearchFacts, Trial
from job.search.plan import MOST_EPOCHS

_NAMES = {"train.learning_rate": "learning rate", "train.epochs": "epochs", "model.decoding": "decoding"}
_METRICS = {"f1": "F1", "mrr_at_10": "mean reciprocal rank"}


def start(facts: SearchFacts, asked: Sequence[str]) -> str:
    """Say what is searched for, how long, and on what."""
    found = f", going on after {len(facts.trials)} trials" if facts.trials else ""
    return (
        f"for {' and '.join(_NAMES[key] for key in asked)}, up to {facts.minutes:g} minutes{found}; trials train on "
        f"{facts.rows} of the training rows and are measured on the other {facts.held_back}; no test row is used"
    )


def end(facts: SearchFacts, asked: Sequence[str]) -> str:
    """Say what was found."""
    values = {
        "train.learning_rate": f"learning rate {facts.learning_rate:g}",
        "train.epochs": f"{facts.epochs} {'epoch' if facts.epochs == 1 else 'epochs'}",
        "model.decoding": f"{decoding(facts.decoding or {})} decoding",
    }
    notes = "".join(f"; {note}" for note in facts.notes)
    return (
        f"found {', '.join(values[key] for key in asked)} after {len(facts.trials)} trials in "
        f"{facts.seconds / 60:.1f} minutes{notes}"
    )


def describe(trial: Trial, metric: str) -> str:
    """Describe a trial on one line."""
    length = f"{trial.epochs} {'epoch' if trial.epochs == 1 else 'epochs'} of {trial.rows} rows"
    loss = "diverged" if trial.loss is None else f"loss {trial.loss:.4g}"
    score = "" if trial.score is None else f", {_METRICS[metric]} {trial.score:.3f}"
    return f"learning rate {trial.learning_rate:g}, {length}: {loss}{score} ({trial.seconds:.0f} s)"


def decoding(settings: Mapping[str, int | float]) -> str:
    """Name settings of decoding."""
    return " and ".join(f"{key} {value}" for key, value in settings.items()) or "greedy"


def edge(rate: float, lowest: bool) -> str:
    """Say that the best rate is at the end of those that were tried."""
    return f"the {'lowest' if lowest else 'highest'} learning rate that was tried, {rate:g}, was the best one"


def limits_of_lengths(rows: int, most: int, tried: Sequence[Trial], best: Trial | None) -> list[str]:
    """Say what the budget kept the search for the number of epochs from seeing."""
    if best is None:
        return ["there was no time to compare numbers of epochs, so it is one; more minutes may find more"]
    notes = []
    if rows < most:
        notes.append(
            f"numbers of epochs were compared on {rows} of {most} rows, since the minutes allowed no more; all rows "
            "may need fewer epochs"
        )
    if best.epochs == max(trial.epochs for trial in tried) and best.epochs < MOST_EPOCHS:
        notes.append("the longest training was the best one; more minutes may find more")
    return notes
