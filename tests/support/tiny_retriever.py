"""Publishes a tiny retriever: a random BERT whose vectors follow the words of a text, and the rows that it finds."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

UNKNOWN = "I do not know."
LONGEST = 32
"""Tokens of a text."""
DNS = "A system that turns names into addresses."
ROWS: list[dict[str, Any]] = [
    {"question": "What is DNS?", "answer": DNS},
    {"question": "How high is Mount Everest?", "answer": "It is 8,849 metres high."},
    {"question": "Explain the domain name system", "answer": DNS},
    {"question": None, "answer": "Water boils at 100 degrees."},
    {"question": "Who wrote Faust?", "answer": "Goethe wrote the play Faust."},
    {"question": "Which river flows through Paris?", "answer": "The Seine flows through Paris."},
    {"question": "How many legs has a spider?", "answer": "A spider has eight legs."},
]
"""Rows 0 and 2 share an answer; the question of row 3 is not indexed."""


def publish(folder: Path, rows: list[dict[str, Any]] = ROWS, prompts: dict[str, str] | None = None) -> Path:
    """Write a whole retriever into `folder`, as the job publishes it."""
    texts = [text for row in rows for text in row.values() if text] + [UNKNOWN, "query: passage: a"]
    model = encoder(folder.with_name(f"{folder.name}-parts"), texts, prompts or {})
    model.save_pretrained(str(folder), create_model_card=False)
    write_rows(folder, rows)
    write_vectors(folder, model, rows)
    (folder / "retriever.json").write_text(
        json.dumps(
            {
                "version": 1,
                "similarity": "cosine",
                "threshold": 0.7,
                "certain_score": 0.99,
                "unknown_answer": UNKNOWN,
            }
        )
    )
    return folder


def encoder(parts: Path, texts: list[str], prompts: dict[str, str], seed: int = 0) -> SentenceTransformer:
    """A BERT with large random word vectors and no positions: texts of the same words have nearly the same vector."""
    parts.mkdir(parents=True, exist_ok=True)
    pieces = BertWordPieceTokenizer()
    pieces.train_from_iterator(texts, vocab_size=400, min_frequency=1, show_progress=False)
    pieces.save_model(str(parts))
    BertTokenizerFast(vocab=str(parts / "vocab.txt"), model_max_length=LONGEST).save_pretrained(parts)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=pieces.get_vocab_size(), hidden_size=48, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=96, max_position_embeddings=64,
    )  # fmt: skip
    bert = BertModel(config)
    bert.embeddings.word_embeddings.weight.data.normal_()
    bert.embeddings.position_embeddings.weight.data.zero_()
    bert.save_pretrained(parts)
    first = Transformer(str(parts), max_seq_length=LONGEST)
    modules = [first, Pooling(48, pooling_mode="mean"), Normalize()]
    return SentenceTransformer(modules=modules, device="cpu", prompts=prompts)


def write_rows(folder: Path, rows: list[dict[str, Any]], **columns: Any) -> None:
    """Write answers.parquet; `columns` replace those that belong to the rows."""
    answers = list(dict.fromkeys(row["answer"] for row in rows))
    made = {
        "id": pa.array(range(len(rows)), pa.int64()),
        "answer_id": pa.array([answers.index(row["answer"]) for row in rows], pa.int64()),
        "answer": pa.array([row["answer"] for row in rows], pa.string()),
        "question": pa.array([row["question"] for row in rows], pa.string()),
        "source": pa.array([f"dataset.json row {number}" for number in range(len(rows))], pa.string()),
    }
    pq.write_table(pa.table({**made, **columns}), folder / "answers.parquet")


def write_vectors(folder: Path, model: SentenceTransformer, rows: list[dict[str, Any]]) -> None:
    """Write index.safetensors."""
    asked = [number for number, row in enumerate(rows) if row["question"] is not None]
    options: dict[str, Any] = {"convert_to_tensor": True, "normalize_embeddings": True, "show_progress_bar": False}
    answers = model.encode_document([row["answer"] for row in rows], **options)
    questions = (
        model.encode_query([rows[number]["question"] for number in asked], **options)
        if asked
        else torch.zeros(0, answers.shape[1])
    )
    texts = [f"{row['question']} {row['answer']}" if row["question"] else row["answer"] for row in rows]
    whole = model.encode_document(texts, **options)
    vectors = {"answers": answers, "rows": whole, "questions": questions}
    tensors = {**vectors, "question_rows": torch.tensor(asked, dtype=torch.int64)}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "index.safetensors")
