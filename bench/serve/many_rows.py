"""Measures a retriever's search among very many rows: `python -m bench.serve.many_rows ENCODER QUESTIONS.jsonl`.

A few thousand real questions and answers are encoded. The other vectors are these with noise, so that many rows are
about the same thing; what is asked is an indexed question with the same noise again. Each row has its own answer, and
its question is indexed. The index is the one that the job publishes, and the search is the server's, with the index and
with a product of all vectors. It does not measure the encoder.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import psutil
import pyarrow as pa
import torch
import typer
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from bench import machine
from job.retrieval import neighbours
from serve.retriever.index import Index
from serve.retriever.neighbours import Neighbours
from serve.retriever.rows import Rows

NOISE = 0.6
"""Length of the noise that is added to a vector of length 1; the cosine of both is 0.86."""
CHUNK = 2**16
BATCH = 32
TOP = 5
Vectors = NDArray[np.float32]


def encode(folder: Path, file: Path, most: int) -> tuple[Vectors, Vectors]:
    """Encode the first questions and answers of a JSON Lines file."""
    with file.open() as lines:
        rows = [json.loads(line) for _, line in zip(range(most), lines, strict=False)]
    model = SentenceTransformer(str(folder), device="cpu")
    made = [model.encode([row[name] for row in rows], normalize_embeddings=True) for name in ("question", "answer")]
    return made[0].astype(np.float32), made[1].astype(np.float32)


def with_noise(vectors: Vectors, random: np.random.Generator) -> Vectors:
    """Add noise of length `NOISE` to vectors, and make them of length 1 again."""
    noise = random.standard_normal(vectors.shape, dtype=np.float32) * np.float32(NOISE / vectors.shape[1] ** 0.5)
    noise += vectors
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return noise


def many(real: Vectors, count: int, random: np.random.Generator) -> Vectors:
    """Make so many vectors of the real ones."""
    found = np.empty((count, real.shape[1]), dtype=np.float32)
    for start in range(0, count, CHUNK):
        rows = np.arange(start, min(start + CHUNK, count)) % len(real)
        found[start : start + len(rows)] = with_noise(real[rows], random)
    return found


def published(answers: Vectors, questions: Vectors) -> Rows:
    """Make rows of the vectors; the vector of a whole row, which no search reads, is that of its answer."""
    count = len(answers)
    numbers = pa.array(np.arange(count))
    texts = pa.array([str(row) for row in range(count)])
    table = pa.table({"id": numbers, "answer_id": numbers, "answer": texts, "question": texts, "source": texts})
    tensors = torch.from_numpy(answers), torch.from_numpy(answers), torch.from_numpy(questions)
    return Rows(table, *tensors, torch.arange(count))


def times(index: Index, asked: torch.Tensor, size: int, calls: int) -> float:
    """Milliseconds of a search for so many questions: the median of some calls."""
    seconds = []
    for call in range(calls + 1):
        some = asked[torch.arange(call * size, (call + 1) * size) % len(asked)]
        began = time.perf_counter()
        index.search(some, [TOP] * len(some))
        seconds.append(time.perf_counter() - began)
    return round(float(np.median(seconds[1:])) * 1000, 1)


def recalls(exact: Index, near: Index, asked: torch.Tensor) -> dict[str, Any]:
    """Compare what both searches find, and check that what both find has the same score and confidence."""
    wanted = [TOP] * len(asked)
    first = five = 0.0
    for left, right in zip(exact.search(asked, wanted), near.search(asked, wanted), strict=True):
        first += left[0] == right[0]
        scores = {hit.answer: hit for hit in left}
        same = [hit for hit in right if hit.answer in scores]
        if any(scores[hit.answer] != hit for hit in same):
            raise RuntimeError("an answer has another score with the index")
        five += len(same) / TOP
    return {"recall_at_1": round(first / len(asked), 4), "recall_at_5": round(five / len(asked), 4)}


def measure(answers: Vectors, questions: Vectors, asked: torch.Tensor) -> None:
    """Build the index, search with and without it, and print a line for each."""
    began = time.perf_counter()
    made = neighbours.build(answers, questions, np.arange(len(answers)))
    seconds = time.perf_counter() - began
    rows = published(answers, questions)
    exact = Index(rows, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        faiss.write_index(made, str(folder / neighbours.FILE))
        size = (folder / neighbours.FILE).stat().st_size
        facts: dict[str, Any] = {
            "rows": len(answers),
            "vectors": made.ntotal,
            "lists": made.nlist,
            "build_s": round(seconds),
        }
        del made
        before, began = psutil.Process().memory_info(), time.perf_counter()
        opened = Neighbours(folder, rows)
        facts |= {"open_s": round(time.perf_counter() - began, 1), "file_mb": round(size / 1e6)}
        near = Index(rows, torch.device("cpu"), opened)
        facts |= recalls(exact, near, asked)
        after = psutil.Process().memory_info()
        facts["own_memory_mb"] = round(((after.rss - after.shared) - (before.rss - before.shared)) / 1e6)
        facts["vectors_mb"] = round((3 * answers.nbytes) / 1e6)
        print(json.dumps(facts), flush=True)
        for name, index, calls in (("exact", exact, 10), ("index", near, 30)):
            row = {f"{size}_questions_ms": times(index, asked, size, calls) for size in (1, BATCH)}
            print(json.dumps({"search": name, **row}), flush=True)


def main(
    encoder: Annotated[Path, typer.Argument(help="A folder that sentence-transformers loads.")],
    questions: Annotated[Path, typer.Argument(help="JSON Lines with question and answer.")],
    rows: Annotated[int, typer.Option(min=1000)] = 1_200_000,
    real: Annotated[int, typer.Option(min=1, help="Rows that are encoded.")] = 4_000,
    asked: Annotated[int, typer.Option(min=BATCH, help="Questions that both searches answer.")] = 200,
) -> None:
    """Compare the exact search with the index among ROWS rows."""
    print(machine.lines(machine.facts()), file=sys.stderr)
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    random = np.random.default_rng(0)
    some_questions, some_answers = encode(encoder, questions, real)
    indexed, answers = many(some_questions, rows, random), many(some_answers, rows, random)
    wanted = with_noise(indexed[random.choice(rows, asked, replace=False)], random)
    measure(answers, indexed, torch.from_numpy(wanted))


if __name__ == "__main__":
    typer.run(main)
