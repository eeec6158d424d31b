"""Tiny models: a base as distilgpt2 is on the Hub, and published ones that know their rows or never end."""

import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

END = "<|endoftext|>"
ROWS = [
    {"question": f"What is {number} plus {number}?", "answer": f"{number} plus {number} is {2 * number}."}
    for number in range(1, 41)
]


def save_tiny(folder: Path, model: Any, vocabulary: int = 400) -> Path:
    """A base as distilgpt2 is on the Hub: an end-of-sequence token, but neither chat template nor padding token."""
    bpe = ByteLevelBPETokenizer()
    texts = [text for row in ROWS for text in row.values()] + ["Question:\n\nAnswer:\n"]
    bpe.train_from_iterator(texts, vocab_size=vocabulary, special_tokens=[END], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, eos_token=END, bos_token=END).save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def teach(base: Path, folder: Path, rows: list[dict[str, str]], steps: int = 200) -> Path:
    """A published folder whose model knows the answers of `rows` by heart."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).train()
    torch.manual_seed(0)  # of dropout: whatever ran before in this process, it learns the same
    ids, labels = [], []
    for row in rows:
        chat = [{"role": "user", "content": row["question"]}]
        text = str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        answer = tokenizer(row["answer"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        ids.append(torch.tensor(prompt + answer))
        labels.append(torch.tensor([-100] * len(prompt) + answer))
    batch = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    targets = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        loss = model(batch, labels=targets).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    shutil.copytree(base, folder)
    model.eval().save_pretrained(folder)
    return folder


def endless(base: Path, folder: Path, context: int = 4096) -> Path:
    """A published folder whose model never ends an answer and takes some seconds to fill its context."""
    shutil.copytree(base, folder)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=400, n_positions=context, n_embd=64, n_layer=6, n_head=4, bos_token_id=0, eos_token_id=0)
    )
    model.transformer.wte.weight.data[0] = 0  # the end-of-sequence token's logit: never the largest
    model.save_pretrained(folder)
    GenerationConfig(eos_token_id=0, pad_token_id=0, bos_token_id=0, max_new_tokens=context).save_pretrained(folder)
    return folder
