"""Search: finds the settings of a run that are `auto`, within a budget of minutes.

Rates first: some learning rates are trained for a short while, and the best third of them three times as long. Then
lengths: the best rate is trained for 1, 2, 4 epochs and so on while the answers get better, and between the best ones.
Then decoding: the best model's answers, decoded in a few ways. Every trial is stored when it is finished, and what
comes next depends on the stored trials alone, so an interrupted search goes on where it was.

All processes take part in every trial, since the rows of a step, and with them the right learning rate, depend on their
number. It knows the order of the trials; `plan` knows which, `trial` how.
"""

import logging
import math
from dataclasses import replace

from job.config.schema import Config
from job.data.stages import load_encoded, load_groups
from job.errors import ConfigError, Diverged
from job.run.facts import BaseFacts
from job.run.folder import RunFolder
from job.run.machine import Machine
from job.run.search_facts import SearchFacts, Trial
from job.search import decoding, held_back, plan, rehearsal, trial, words
from job.search.plan import Limits, Setting
from job.search.trial import Bench
from job.training.geometry import rows_per_step

log = logging.getLogger(__name__)


def search(config: Config, folder: RunFolder, machine: Machine) -> None:
    """Find what is `auto`; process 0 writes search.json, whose numbers then stand in run.yaml.

    Args:
        config: of the run.
        folder: of the run, prepared; nothing is trained in it yet.
        machine: what to compute with.

    Raises:
        ConfigError: the budget is too small for any trial.
        DataError: too few training rows to hold some of them back.
        Diverged: every learning rate is too high.
        Interrupted: a signal came; the next call goes on.
        OutOfMemory: as in training.
    """
    rows = load_encoded(folder)["train"]  # and not "test", on which nothing here may depend
    parts = held_back.divide(rows, load_groups(folder), config.seed, config.auto_keys()[0])
    bench = Bench(config, parts, folder / "base", folder / "search", machine)
    before = folder.read(SearchFacts)
    machine.wait()  # no process may write before all have read
    Search(bench, folder, before if before is not None else rehearsal.measure(bench)).find()
    if machine.rank == 0:
        folder.discard("search")
    machine.wait()


class Search:
    """A search on its way."""

    def __init__(self, bench: Bench, folder: RunFolder, facts: SearchFacts) -> None:
        """Start, or go on from the facts of an earlier call."""
        config, self.bench, self.folder = bench.config, bench, folder
        self.asked = config.auto_keys()
        self.rate = None if config.train.learning_rate == "auto" else config.train.learning_rate
        self.epochs = None if config.train.epochs == "auto" else config.train.epochs
        self.limits = Limits(
            60 * config.train.search_minutes,
            len(bench.parts["train"]),
            rows_per_step(bench.section(Setting(1e-5, 1, 1)), bench.machine.processes),
            config.model.kind,
        )
        self.facts = facts
        self.made: list[Trial] = []
        """The trials that led here, whichever call made them; those of `facts` may be further."""
        self._record(facts)

    def find(self) -> None:
        """Make all trials, and record what was found."""
        self._say(words.start(self.facts))
        rate = self.rate if self.rate is not None else self._find_rate()
        epochs = self.epochs if self.epochs is not None else self._find_epochs(rate)
        settings = self._find_decoding(rate, epochs) if "model.decoding" in self.asked else None
        self._record(replace(self.facts, finished=True, learning_rate=rate, epochs=epochs, decoding=settings))
        self._say(words.end(self.facts))

    def _find_rate(self) -> float:
        rates = plan.candidate_rates(self.folder.require(BaseFacts).parameters, self.limits.kind)
        settings = plan.first_rung(rates, self.limits, plan.pace(self.facts, []), self.epochs)
        if not settings:
            raise self._too_small()
        if len(settings) < len(rates):
            self._note(words.fewer_rates(sorted(each.learning_rate for each in settings)))
        done: list[Trial] = []
        while settings:
            # the last ones get a score, so that lengths go on from there without training the best one again
            whole = len(settings) < plan.KEPT and settings[0].rows == self.limits.rows
            scored = self.limits.kind == "retriever" or (self.epochs is None and whole)
            done = self._try_all(settings, scored)
            settings = plan.next_rung(done, self.limits, plan.pace(self.facts, self.made), self._left(), self.epochs)
        best = plan.ranked(done, self.limits.kind)
        if not best:
            raise Diverged(
                f"train.learning_rate: found auto, and no rate of {', '.join(f'{rate:g}' for rate in rates)} trains "
                f"{self.bench.config.model.base}; set train.precision=fp32, or a lower rate, and choose another output"
            )
        tried = sorted({each.learning_rate for each in self.made})
        if best[0].learning_rate in (tried[0], tried[-1]):
            self._note(words.edge(best[0].learning_rate, lowest=best[0].learning_rate == tried[0]))
        return best[0].learning_rate

    def _try_all(self, settings: list[Setting], scored: bool) -> list[Trial]:
        """Make the trials of a rung, as far as the time allows: they may take longer than planned."""
        done = []
        for number, each in enumerate(settings):
            if number and plan.pace(self.facts, self.made).seconds(each) > self._left():
                self._note(words.out_of_time([each.learning_rate for each in settings[number:]]))
                break
            done.append(self._try(each, scored))
        return done

    def _find_epochs(self, rate: float) -> int:
        made = [trial for trial in self.made if trial.learning_rate == rate]
        rows = plan.rows_of_lengths(self.limits, plan.pace(self.facts, self.made), self._left(), made)
        tried = [trial for trial in made if trial.rows == rows and (trial.score is not None or trial.loss is None)]
        while rows:
            epochs = plan.next_length(tried, rate, rows, self._left(), plan.pace(self.facts, self.made))
            if epochs is None:
                break
            tried.append(self._try(Setting(rate, epochs, rows), scored=True))
            self._keep_model_of(plan.best_length(tried))
        best = plan.best_length(tried)
        if best is None and self.rate is not None:
            raise self._too_small()
        for note in words.limits_of_lengths(rows, self.limits.rows, tried, best):
            self._note(note)
        return 1 if best is None else best.epochs

    def _find_decoding(self, rate: float, epochs: int) -> dict[str, int | float]:
        alike = [trial for trial in self.made if (trial.learning_rate, trial.epochs) == (rate, epochs)]
        rows = max((trial.rows for trial in alike if trial.loss is not None), default=0) or self._affordable(epochs)
        setting = Setting(rate, epochs, rows)
        model = self.bench.model(setting)
        missing = not model.exists()
        self.bench.machine.wait()  # process 0 must not make it before all have looked
        if missing and trial.run(self.bench, setting, scored=False).loss is None:
            raise Diverged(f"train.learning_rate: {rate:g} is too high for {self.bench.config.model.base}; lower it")
        return decoding.choose(self.bench, model, self.facts, self._record)

    def _affordable(self, epochs: int) -> int:
        """Count the rows that a training of so many epochs may have."""
        pace = plan.pace(self.facts, self.made)
        rows = int((self._left() - pace.start) / (pace.row * epochs))
        if rows < self.limits.fewest_rows and not self.made:
            raise self._too_small()
        return min(self.limits.rows, max(rows, self.limits.fewest_rows))

    def _try(self, setting: Setting, scored: bool) -> Trial:
        """Make a trial, unless an earlier call has made it."""
        for done in self.facts.trials:
            known = done.score is not None or done.loss is None or not scored
            if (done.learning_rate, done.epochs, done.rows) == setting and known:
                self.made.append(done)
                return done
        made = trial.run(self.bench, setting, scored)
        self.made.append(made)
        self._record(replace(self.facts, trials=[*self.facts.trials, made]))
        self._say(words.describe(made, self.facts.metric))
        if self.bench.machine.rank == 0 and not (scored and "model.decoding" in self.asked):
            self.bench.discard(setting)
        self.bench.machine.wait()
        return made

    def _keep_model_of(self, best: Trial | None) -> None:
        """Discard the models of all trials but the best, which decoding needs."""
        if self.bench.machine.rank > 0:
            return
        settings = {Setting(each.learning_rate, each.epochs, each.rows) for each in self.made}
        for setting in settings - ({Setting(best.learning_rate, best.epochs, best.rows)} if best else set()):
            self.bench.discard(setting)

    def _left(self) -> float:
        """Count the seconds that are left for trainings."""
        spent = sum(each.seconds for each in self.made)
        decodings = len(decoding.CHOICES) if "model.decoding" in self.asked else 0
        return self.limits.budget - spent - decodings * plan.pace(self.facts, self.made).score

    def _too_small(self) -> ConfigError:
        pace = plan.pace(self.facts, self.made)
        seconds = plan.fewest_seconds(self.limits, pace, self.asked, self.epochs or 1)
        return ConfigError(
            f"train.search_minutes: found {self.bench.config.train.search_minutes:g}, and the smallest search for "
            f"{' and '.join(self.asked)} takes about {math.ceil(seconds / 6) / 10:g} minutes here; raise it, or set "
            "numbers instead of auto"
        )

    def _note(self, note: str) -> None:
        if note not in self.facts.notes:
            self._record(replace(self.facts, notes=[*self.facts.notes, note]))

    def _record(self, facts: SearchFacts) -> None:
        self.facts = facts
        if self.bench.machine.rank == 0:
            self.folder.write(facts)

    def _say(self, line: str) -> None:
        if self.bench.machine.rank == 0:
            log.info(f"search: {line}")
