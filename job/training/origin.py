"""Origin: hashes of the rows that a model was trained on and of those that it is tested on.

A model must not be measured on rows that it was trained on. If its data is prepared again, the hashes tell whether the
rows are still the same.

It knows encoded rows and the facts of a training. It does not know where the rows come from.
"""

import datasets

from job.errors import DataError
from job.run.facts import TrainingFacts
from job.training.batches import Rows


def hash_rows(rows: datasets.DatasetDict) -> dict[str, str]:
    """Hash the encoded rows of each part, for the facts of the training."""
    return {name: Rows(part, 0).fingerprint() for name, part in rows.items() if len(part)}


def require_same(training: TrainingFacts | None, rows: datasets.DatasetDict, run: str) -> None:
    """Refuse rows that are not those of the training.

    Args:
        training: the facts of the training; without hashes nothing is compared.
        rows: "train" and "test", encoded.
        run: the run folder's name, for the message.

    Raises:
        DataError: the rows are others.
    """
    if training is None or training.encoded is None:
        return
    now = hash_rows(rows)
    changed = [name for name in ("train", "test") if training.encoded.get(name) != now.get(name)]
    if changed:
        raise DataError(
            f"output: {run} holds a model trained on other rows: prepared again, the {' and '.join(changed)} rows "
            "are not those of its training, and the test rows may include rows that it has seen; nothing was replaced. "
            "Restore the data and the version of Kickoff, or choose another output"
        )
