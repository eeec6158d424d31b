"""Rehearsal: measures, before the first trial of a search, how long trials will take here."""

import gc
import time

from job.run.search_facts import SearchFacts
from job.search.plan import Setting
from job.search.trial import Bench
from job.training import train


def measure(bench: Bench) -> SearchFacts:
    """Take two real steps on the longest rows, as `check` does.

    Returns:
        The facts of a search without a trial, the same in every process.
    """
    config, rows = bench.config, bench.parts["train"]
    started = time.monotonic()
    section = bench.section(Setting(1e-5, 1, len(rows)))
    rehearsal = train.rehearse(section, rows, bench.base, bench.machine, train.objective(config))
    gc.collect()
    bench.machine.free_cache()
    loading = time.monotonic() - started
    tokens, held = (sum(map(len, bench.parts[name]["input_ids"])) for name in ("train", "test"))
    row = rehearsal.seconds_per_token * tokens / len(rows)
    facts = SearchFacts(
        minutes=config.train.search_minutes,
        metric="f1" if config.model.kind == "generator" else "mrr_at_10",
        rows=len(rows),
        held_back=len(bench.parts["test"]),
        row_seconds=row,
        start_seconds=loading + rehearsal.seconds_per_token * held / 3,  # the forward pass is a third of a step
        asked=config.auto_keys(),
    )
    return bench.machine.gather(facts)[0]
