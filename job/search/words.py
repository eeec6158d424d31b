"""Words: what a search says of itself, in the log and in the report."""

from collections.abc import Mapping, Sequence

from job.run.search_facts import SearchFacts, Trial
from job.search.plan import MOST_EPOCHS

_NAMES = {"train.learning_rate": "learning rate", "train.epochs": "epochs", "model.decoding": "decoding"}
METRICS = {"f1": "F1", "mrr_at_10": "mean reciprocal rank"}
"""{`SearchFacts.metric`: its name}."""


def start(facts: SearchFacts) -> str:
    """Say what is searched for, how long, and on what."""
    before = f", going on after {len(facts.trials)} trials" if facts.trials else ""
    asked = " and ".join(_NAMES[key] for key in facts.asked)
    return (
        f"for {asked}, up to {facts.minutes:g} minutes{before}; trials train "
        f"on {facts.rows} of the training rows and are measured on the other {facts.held_back}; no test row is used"
    )


def end(facts: SearchFacts) -> str:
    """Say what was found, and what limits it."""
    notes = "".join(f"; {note}" for note in facts.notes)
    trials = f"{len(facts.trials)} {'trial' if len(facts.trials) == 1 else 'trials'}"
    return f"found {found(facts)} after {trials} in {facts.seconds / 60:.1f} minutes{notes}"


def found(facts: SearchFacts) -> str:
    """Name what a finished search was asked for."""
    values = {
        "train.learning_rate": f"learning rate {facts.learning_rate:g}",
        "train.epochs": f"{facts.epochs} {'epoch' if facts.epochs == 1 else 'epochs'}",
        "model.decoding": f"{decoding(facts.decoding or {})} decoding",
    }
    return ", ".join(values[key] for key in facts.asked)


def describe(trial: Trial, metric: str) -> str:
    """Describe a trial on one line."""
    length = f"{trial.epochs} {'epoch' if trial.epochs == 1 else 'epochs'} of {trial.rows} rows"
    loss = "diverged" if trial.loss is None else f"loss {trial.loss:.4g}"
    score = "" if trial.score is None else f", {METRICS[metric]} {trial.score:.3f}"
    return f"learning rate {trial.learning_rate:g}, {length}: {loss}{score} ({trial.seconds:.0f} s)"


def decoding(settings: Mapping[str, int | float]) -> str:
    """Name settings of decoding."""
    return " and ".join(f"{key} {value}" for key, value in settings.items()) or "greedy"


def edge(rate: float, lowest: bool) -> str:
    """Say that the best rate is at the end of those that were tried."""
    return f"the {'lowest' if lowest else 'highest'} learning rate that was tried, {rate:g}, was the best one"


def fewer_rates(rates: Sequence[float]) -> str:
    """Say which rates the budget allowed."""
    return f"the minutes allowed only the learning rates {' and '.join(f'{rate:g}' for rate in rates)}"


def out_of_time(rates: Sequence[float]) -> str:
    """Say which rates were not tried."""
    return (
        f"the minutes ended before {', '.join(f'{rate:g}' for rate in sorted(rates))} could be tried as long as others"
    )


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
