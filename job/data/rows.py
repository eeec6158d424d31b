"""Rows: the rows between two stages, as memory-mapped Arrow files, so that memory does not grow with their number.

It knows Arrow, and from how many rows on parallel workers are worth starting. It does not know what is in the rows.
"""

import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

BATCH = 1000
"""Rows in memory at once, in each process."""
IGNORE_INDEX = -100
"""Label of a position without loss, the default ignore_index of torch's cross entropy."""
_MIN_PARALLEL_ROWS = 4000
"""Starting two workers costs about as much as this many rows in one process."""
_RESULT_NUMBERS = itertools.count(1)


def write(path: Path, schema: pa.Schema, batches: Iterable[dict[str, list[Any]]]) -> datasets.Dataset:
    """Write rows to an Arrow file as they come.

    Args:
        path: of the file.
        schema: its columns.
        batches: columns of values, as long as each other.

    Returns:
        The data set that reads the file.
    """
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for batch in batches:
            stream.write_batch(pa.RecordBatch.from_pydict(batch, schema=schema))
    return datasets.Dataset.from_file(str(path))


def transform(
    rows: datasets.Dataset, change: Callable[[pa.Table], pa.Table], schema: pa.Schema, name: str
) -> datasets.Dataset:
    """Apply a function to every batch of rows, in several processes if there are many rows. The order stays.

    Args:
        rows: the rows to read.
        change: from a table of rows to a table with `schema`; it must not depend on how rows fall into batches.
        schema: the columns of the result.
        name: shown beside the progress bar.

    Returns:
        The changed rows, in a new file.
    """
    features = datasets.Features.from_arrow_schema(schema)
    if not len(rows):
        return datasets.Dataset(schema.empty_table())
    result: datasets.Dataset = rows.with_format("arrow").map(
        change,
        batched=True,
        batch_size=BATCH,
        num_proc=process_count(len(rows)),
        features=features,
        remove_columns=rows.column_names,
        load_from_cache_file=False,
        # The default is a hash of `change`, which takes seconds for a tokenizer. It also names the result's file, in
        # the folder of `rows`: of two results with one name the second would replace the first.
        new_fingerprint=f"{name}-{next(_RESULT_NUMBERS)}",
        desc=name,
    )
    return result.with_format(None)


def process_count(rows: int) -> int | None:
    """The number of worker processes for so many rows; None to work in this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16) if cores > 1 and rows >= _MIN_PARALLEL_ROWS else None
