"""Loads a published retriever: its encoder, its rows and their vectors, checked against each other.

It knows the parts and their order. It does not know requests.
"""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from serve.engine import memory
from serve.engine.threads import count
from serve.retriever import pace, rows
from serve.retriever.encoder import Encoder
from serve.retriever.engine import RetrieverEngine
from serve.retriever.files import NEIGHBOURS
from serve.retriever.index import Index
from serve.retriever.verify import verify

if TYPE_CHECKING:
    from serve.retriever.neighbours import Neighbours
log = logging.getLogger(__name__)
MANY_ROWS = 1_000_000
"""From here on a search of all rows on a CPU is worth a warning."""
DTYPES = ("auto", "float32")


def load(
    folder: Path, device: str, *, dtype: str, max_rows: int, hang_seconds: float, workers: int = 1
) -> RetrieverEngine:
    """Load and verify a retriever.

    Args:
        folder: the published model.
        device: "cpu", "cuda:0", ...
        dtype: --dtype.
        max_rows: texts of a batch.
        hang_seconds: --hang-seconds.
        workers: engines that share the processors.

    Raises:
        OSError: the files cannot be read.
        ValueError: they do not fit each other, or the server cannot carry out what they ask for.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype: found {dtype}, expected {' or '.join(DTYPES)}; a retriever computes in float32")
    on_cpu = torch.device(device).type == "cpu"
    if not on_cpu and not torch.cuda.is_available():
        raise ValueError(f"device: found {device}, and torch {torch.__version__} can use no GPU; take --device cpu")
    if on_cpu:
        torch.set_num_threads(count(share=workers))
        memory.return_freed_memory()
    published = rows.read(folder)
    encoder = Encoder(folder, device)
    context = pace.context(encoder, hang_seconds)
    verify(encoder, published, context)
    index = Index(published, encoder.device, _neighbours(folder, published) if on_cpu else None)
    if on_cpu:
        memory.keep_freed_memory()
    log.info(
        "engine: %d rows, %d distinct answers, %d indexed questions; questions of up to %d tokens",
        len(published.table), index.distinct, len(published.questions), context,
    )  # fmt: skip
    if on_cpu and not (folder / NEIGHBOURS).exists() and len(published.table) > MANY_ROWS:
        log.warning(
            "engine: it lacks %s, so each question is compared with all rows, which takes %.0f ms here; publish the "
            "model again", NEIGHBOURS, _search_seconds(index) * 1000,
        )  # fmt: skip
    tokens = pace.step_tokens(encoder, context, hang_seconds)
    return RetrieverEngine(encoder, index, context=context, step_tokens=tokens, max_rows=max_rows)


def _neighbours(folder: Path, published: rows.Rows) -> "Neighbours | None":
    """Open the published index of near vectors, if there is one; on a GPU it is not used."""
    if not (folder / NEIGHBOURS).exists():
        return None
    from serve.retriever.neighbours import Neighbours  # here, since faiss brings an OpenMP and a BLAS of its own

    return Neighbours(folder, published)


def _search_seconds(index: Index) -> float:
    """Measure the search of one question, the second time."""
    for _ in range(2):
        began = time.monotonic()
        index.search(index.rows.answers[:1], [1])
    return time.monotonic() - began
