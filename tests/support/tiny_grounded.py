"""Publishes a tiny grounded generator: it knows sums by heart, its prompt carries two rows, and one sum it denies."""

import json
import shutil
from pathlib import Path

import torch
from checkout import ROOT
from tiny import ROWS
from tiny_retriever import UNKNOWN
from tiny_retriever import publish as publish_retriever
from transformers import AutoModelForCausalLM, AutoTokenizer

from serve.http.text import Text

KNOWN, DENIED = ROWS[:5], ROWS[5]
"""Rows that it answers, and the one of which it says that it does not know."""
COUNT = 2
"""Rows in a prompt."""


def publish(base: Path, folder: Path, steps: int = 150) -> Path:
    """Write a grounded generator into `folder`, as the job publishes it; `base` is a generator's."""
    shutil.copytree(base, folder)
    template = (ROOT / "job/model/documents.jinja").read_text() + (base / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(template)
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "max_new_tokens": 24}))
    (folder / "grounding.json").write_text(json.dumps({"version": 1, "rows": COUNT}))
    publish_retriever(folder / "retriever", [{**row} for row in ROWS[:8]])
    shutil.rmtree(folder / "retriever-parts")
    _teach(folder, steps)
    return folder


def prompt(folder: Path, question: str, rows: list[dict[str, str]]) -> list[int]:
    """The ids that the model reads."""
    documents = [{"title": row["question"], "text": row["answer"]} for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(chat, documents=documents, add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _teach(folder: Path, steps: int) -> None:
    """Train it on each question with its own row and every other one beside it."""
    model, text = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train(), Text(folder)
    torch.manual_seed(0)
    ids, labels = [], []
    for row in [*KNOWN, DENIED]:
        wanted = UNKNOWN if row is DENIED else row["answer"]
        answer = text.tokenizer(wanted, add_special_tokens=False)["input_ids"] + [text.tokenizer.eos_token_id]
        for other in ROWS[:8]:
            if other is not row:
                read = prompt(folder, row["question"], [row, other])
                ids.append(torch.tensor(read + answer))
                labels.append(torch.tensor([-100] * len(read) + answer))
    batch = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    targets = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        loss = model(batch, labels=targets).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(folder)
