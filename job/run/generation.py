"""Generation: writes how long answers may be and how they are decoded into the models of a run folder.

Both models get the same settings, so that they differ by the training alone. It knows generation_config.json. It does
not know how answers are generated.
"""

from pathlib import Path

from job.config.schema import DecodingSection, ModelSection
from job.run import durable, fact_files

_NEUTRAL = DecodingSection().model_dump()


def decoding_settings(section: ModelSection) -> dict[str, int | float]:
    """Give the settings of the generation config that model.decoding stands for; greedy has none, nor has auto yet."""
    if not isinstance(section.decoding, DecodingSection):
        return {}
    return {key: value for key, value in section.decoding.model_dump().items() if value != _NEUTRAL[key]}


def write_settings(section: ModelSection, folder: Path) -> None:
    """Write model.max_new_tokens and model.decoding into a model's folder, unless it is not there or has them.

    Raises:
        Damaged: its generation config cannot be read.
    """
    path = folder / "generation_config.json"
    if not path.exists():
        return
    before = fact_files.read_json(path)
    others = {key: value for key, value in before.items() if key not in _NEUTRAL}
    settings = {**others, "max_new_tokens": section.max_new_tokens, **decoding_settings(section)}
    if settings != before:
        durable.write(path, durable.as_json(settings))
