"""Checks at the start that the encoder made the published vectors, and that tokens are counted as it sees them.

A few of the indexed questions are encoded again and must give their published vectors. It knows the encoder and the
rows. It does not know requests.
"""

import torch

from serve.retriever.encoder import Encoder
from serve.retriever.files import ANSWERS, VECTORS
from serve.retriever.request import Side
from serve.retriever.rows import Rows

SAMPLES = 8
LEAST = 0.999
"""Smallest cosine of a published vector with the one made here; another kind of processor changes the sixth digit."""


def verify(encoder: Encoder, rows: Rows, limit: int) -> None:
    """Encode some of the indexed texts again.

    Args:
        encoder: the loaded encoder.
        rows: the published rows.
        limit: longer texts are left out, since the server cannot encode them whole.

    Raises:
        ValueError: the vectors were made by another encoder, or tokens are counted in another way.
    """
    at = _spread(len(rows.question_rows))
    if at:
        texts = _texts(rows, "question", rows.question_rows[at].tolist())
        _compare(encoder, texts, rows.questions[at], "query", limit)
    else:
        at = _spread(len(rows.table))
        _compare(encoder, _texts(rows, "answer", at), rows.answers[at], "document", limit)


def _spread(count: int) -> list[int]:
    """Up to `SAMPLES` positions, the first and the last among them."""
    return sorted({round(step * (count - 1) / (SAMPLES - 1)) for step in range(SAMPLES)}) if count else []


def _texts(rows: Rows, name: str, at: list[int]) -> list[str]:
    column = rows.table.column(name)
    return [str(column[row].as_py()) for row in at]


def _compare(encoder: Encoder, texts: list[str], published: torch.Tensor, side: Side, limit: int) -> None:
    lengths = [encoder.length(text, side) for text in texts]
    short = [at for at, length in enumerate(lengths) if length <= limit]
    if not short:
        return
    chosen = [texts[at] for at in short]
    counted = encoder.counted_lengths(chosen, side)
    if counted != [lengths[at] for at in short]:
        raise ValueError(f"its encoder sees {counted} tokens where its tokenizer makes {[lengths[at] for at in short]}")
    made = encoder.encode(chosen, side).cpu()
    if made.shape[1] != published.shape[1]:
        raise ValueError(
            f"{VECTORS} has vectors of {published.shape[1]} numbers, and its encoder makes {made.shape[1]}; the "
            "vectors were made by another encoder"
        )
    cosines = (made * published[short]).sum(1)
    worst = int(cosines.argmin())
    if not float(cosines[worst]) > LEAST:  # also if it is not a number
        raise ValueError(
            f"the vectors were made by another encoder: {chosen[worst][:60]!r} of {ANSWERS} gives a vector with the "
            f"cosine {float(cosines[worst]):.4f} to the published one, expected above {LEAST}; publish the model again"
        )
