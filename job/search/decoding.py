"""Decoding: chooses how a trained model's answers are decoded, by the F1 of its answers to held-back rows.

The choices are those that the published generation config can name and that both the evaluation and the server carry
out. Beams are not among them: the server does not search with beams.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from job.config.schema import DecodingSection
from job.run.generation import write_settings
from job.run.search_facts import DecodingTrial, SearchFacts
from job.search import words
from job.search.trial import Bench

CHOICES: tuple[dict[str, int | float], ...] = (
    {},
    {"repetition_penalty": 1.1},
    {"repetition_penalty": 1.2},
    {"no_repeat_ngram_size": 3},
)
"""Greedy first: it wins a tie."""
log = logging.getLogger(__name__)


def choose(
    bench: Bench, model: Path, facts: SearchFacts, record: Callable[[SearchFacts], None]
) -> dict[str, int | float]:
    """Measure each choice that is not measured yet.

    Args:
        bench: of the search.
        model: the folder of the trained model; its generation config is changed.
        facts: of the search so far.
        record: stores the facts.

    Returns:
        The settings of the best one.
    """
    for number, settings in enumerate(CHOICES):
        if number < len(facts.decodings):
            continue
        score = 0.0
        if bench.machine.rank == 0:
            section = bench.config.model.model_copy(update={"decoding": DecodingSection.model_validate(settings)})
            write_settings(section, model)
            score = bench.answers_score(model)
            log.info(f"search: {words.decoding(settings)} decoding: F1 {score:.3f}")
        done = DecodingTrial(settings, bench.machine.gather(score)[0])
        facts = replace(facts, decodings=[*facts.decodings, done])
        record(facts)
    best = max(facts.decodings, key=lambda trial: trial.score)  # the first of equal ones
    return dict(best.settings)
