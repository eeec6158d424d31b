"""Batches: which rows go into which optimizer step, and how they become tensors.

The order depends on seed and epoch alone, so a resumed run sees the batches of an unbroken one, and any number of
processes shares the same steps. It knows ids, labels and the padding id. It does not know models.
"""

from collections.abc import Callable, Sequence

import datasets
import numpy as np
import pyarrow as pa
import torch
import xxhash

from job.data.rows import IGNORE_INDEX

POOL_STEPS = 50
"""Rows are sorted by length within pools of this many steps: little padding, and still a random order."""


def epoch_steps(lengths: list[int], rows_per_step: int, seed: int, epoch: int) -> list[list[int]]:
    """List the rows of each optimizer step of an epoch: each row once, rows of similar length together.

    Args:
        lengths: of each row, in tokens.
        rows_per_step: over all processes; the last step may have fewer.
        seed: of the order, together with `epoch`.
        epoch: counted from 0.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths)).tolist()
    # at least four pools: with fewer, a small data set would have the same batches in every epoch
    pool = rows_per_step * max(1, min(POOL_STEPS, len(lengths) // (rows_per_step * 4)))
    steps = []
    for start in range(0, len(order), pool):
        rows = sorted(order[start : start + pool], key=lengths.__getitem__)
        steps += [rows[first : first + rows_per_step] for first in range(0, len(rows), rows_per_step)]
    return [steps[index] for index in random.permutation(len(steps))]


def micro_batches(step: list[int], size: int, rank: int, processes: int) -> list[list[int]]:
    """List the rows of a step that process `rank` computes, in forward passes of at most `size` rows."""
    mine = step[rank::processes]
    return [mine[start : start + size] for start in range(0, len(mine), size)]


class Rows:
    """Encoded rows: ids and labels as flat arrays over Arrow's memory; lists of lists would take ten times as much."""

    def __init__(self, rows: datasets.Dataset, pad_id: int) -> None:
        """Take over `rows`: {"input_ids", "labels"}, as many labels as ids in each row."""
        table = rows.select_columns(["input_ids", "labels"]).with_format("arrow")[:]
        self._ids, self._bounds = _flat(table["input_ids"])
        self._labels, _ = _flat(table["labels"])
        self._pad_id = pad_id
        self.lengths: list[int] = np.diff(self._bounds).tolist()
        before = np.concatenate([[0], np.cumsum(self._labels != IGNORE_INDEX)])
        self.trained: list[int] = np.diff(before[self._bounds]).tolist()

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.lengths)

    def fingerprint(self) -> str:
        """Hash ids, labels and row bounds: other rows, or the same in another order, give another hash."""
        digest = xxhash.xxh3_128()
        for array in (self._bounds, self._ids, self._labels):
            digest.update(np.ascontiguousarray(array, dtype=np.int64).data)
        return digest.hexdigest()

    def split(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Give the ids of a row without a label, and those with one."""
        part = slice(self._bounds[row], self._bounds[row + 1])
        ids, labelled = self._ids[part], self._labels[part] != IGNORE_INDEX
        return ids[~labelled], ids[labelled]

    def batch(
        self, rows: list[int], device: torch.device, prompt: Callable[[int], np.ndarray] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give ids, labels and attention mask of rows by number, as `pad` does, on `device`.

        Args:
            rows: by number.
            device: of the tensors.
            prompt: gives the ids to read for a row instead of its own prompt, which are its ids without a label.
        """
        if prompt is None:
            places = [slice(self._bounds[row], self._bounds[row + 1]) for row in rows]
            both = [(self._ids[at], self._labels[at]) for at in places]
        else:
            pairs = [(prompt(row), self.split(row)[1]) for row in rows]
            both = [
                (np.concatenate(pair), np.concatenate([np.full(len(pair[0]), IGNORE_INDEX), pair[1]])) for pair in pairs
            ]
        ids, labels, mask = pad([ids for ids, _ in both], [labels for _, labels in both], self._pad_id)
        return ids.to(device), labels.to(device), mask.to(device)


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return all values one after the other, and where each row begins and the last one ends."""
    rows = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return rows.flatten().to_numpy(zero_copy_only=False), rows.offsets.to_numpy() - rows.offsets[0].as_py()


def pad(
    input_ids: Sequence[Sequence[int] | np.ndarray], labels: Sequence[Sequence[int] | np.ndarray], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pad rows on the right.

    Returns:
        Ids, labels and attention mask, each int64 [rows, longest row]. Padding is known by length and not by id: the
        padding id may be the end-of-sequence id, whose label must stay.
    """
    shape = len(input_ids), max(map(len, input_ids))
    ids, marked, mask = np.full(shape, pad_id), np.full(shape, IGNORE_INDEX), np.zeros(shape, dtype=np.int64)
    for row, (tokens, wanted) in enumerate(zip(input_ids, labels, strict=True)):
        ids[row, : len(tokens)], marked[row, : len(tokens)], mask[row, : len(tokens)] = tokens, wanted, 1
    return torch.from_numpy(ids), torch.from_numpy(marked), torch.from_numpy(mask)
