"""Rows between the stages: Arrow files on disk, read where they lie, so that memory does not grow with the rows.

It knows Arrow and how many processes pay. It does not know what is in the rows.
"""

import itertools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

BATCH = 1000
"""Rows that are in memory at once, in each process."""
IGNORED = -100
"""Label of a position that is not trained, as torch's cross entropy knows it."""
_ROWS_THAT_PAY = 4000
"""Starting two more processes costs about as much as this many rows in one."""
_NUMBERS = itertools.count(1)


def write(path: Path, schema: pa.Schema, batches: Iterable[dict[str, list[Any]]]) -> datasets.Dataset:
    """Write batches of columns to an Arrow file as they come; the data set that reads it."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
        for batch in batches:
            stream.write_batch(pa.RecordBatch.from_pydict(batch, schema=schema))
    return datasets.Dataset.from_file(str(path))


def transformed(
    rows: datasets.Dataset, change: Callable[[pa.Table], pa.Table], schema: pa.Schema, name: str
) -> datasets.Dataset:
    """`change` done to every batch, by several processes if there are many rows; the order stays.

    Args:
        change: from a table of rows to a table with `schema`; it must not depend on how rows fall into batches.
        name: what is shown beside the progress bar.
    """
    features = datasets.Features.from_arrow_schema(schema)
    if not len(rows):
        return datasets.Dataset(schema.empty_table())
    result: datasets.Dataset = rows.with_format("arrow").map(
        change,
        batched=True,
        batch_size=BATCH,
        num_proc=processes(len(rows)),
        features=features,
        remove_columns=rows.column_names,
        load_from_cache_file=False,
        # The default is a hash of `change`, which takes seconds for a tokenizer. The result's file is named by this, in
        # the folder of `rows`: with one name for two results the second would take the place of the first.
        new_fingerprint=f"{name}-{next(_NUMBERS)}",
        desc=name,
    )
    return result.with_format(None)


def processes(rows: int) -> int | None:
    """None for this process alone."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16) if cores > 1 and rows >= _ROWS_THAT_PAY else None
