"""Retrievers in the making: rows, questions that none of them answers, a tiny encoder, and configs of short runs."""

import json
import shutil
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from tiny_retriever import encoder
from transformers import AutoTokenizer

from job.config.schema import Config
from job.data.pairs import Prompts, encode

LENGTH = 32
QUERY, DOCUMENT = "query: ", "some passage: "
PAIRS = [
    ("Who painted the Mona Lisa?", "Leonardo da Vinci painted her in Florence."),
    ("How high is Mount Everest?", "It rises 8,849 metres above the sea."),
    ("What is DNS?", "A system that turns host names into addresses."),
    ("Explain the domain name service", "A system that turns host names into addresses."),
    ("Which river flows through Paris?", "The Seine crosses the French capital."),
    ("How many legs has a spider?", "Every spider walks on eight legs."),
    ("At what temperature does water boil?", "Pure water boils at 100 degrees Celsius."),
    ("When does the kettle bubble?", "Pure water boils at 100 degrees Celsius."),
    ("Who wrote Faust?", "The drama Faust is by Goethe."),
    ("What colour is an emerald?", "Emeralds are green because of chromium."),
    ("How long is a marathon?", "Runners cover 42.195 kilometres."),
    ("Which planet has rings?", "Saturn is famous for its bright rings."),
    ("Who invented the telephone?", "Alexander Graham Bell got the patent in 1876."),
    ("What do pandas eat?", "Bamboo makes up almost all of their food."),
    ("Where do penguins live?", "Nearly all of them live south of the equator."),
    ("How many strings has a guitar?", "A usual guitar has six strings."),
    ("What is the fastest animal on land?", "A cheetah sprints at 110 kilometres an hour."),
    ("Which metal is liquid at room temperature?", "Mercury stays liquid when others are solid."),
    ("Who discovered penicillin?", "Fleming noticed the mould in 1928."),
    ("What keeps bees busy?", "They gather nectar and make honey."),
]
ROWS = [{"question": question, "answer": answer} for question, answer in PAIRS]
UNKNOWN = [
    "How do I renew my passport?",
    "Which train goes to the airport?",
    "Is the museum closed on Monday?",
    "Can my neighbour borrow a ladder?",
    "What does the blue button do?",
    "When is the next election?",
    "How much sugar belongs into jam?",
]
"""Questions that no row answers."""
REWORDED = [
    {"question": "Name the painter of the Mona Lisa", "answer": PAIRS[0][1]},
    {"question": "Everest: how many metres high?", "answer": PAIRS[1][1]},
    {"question": "The legs of a spider, how many?", "answer": PAIRS[5][1]},
    {"question": "Is a ruby red?", "answer": "Rubies are red because of chromium, too."},
]
"""Test rows; the last one's answer is in no other row."""
_NO_PROMPTS = Prompts()


def save_encoder(folder: Path, prompts: dict[str, str] | None = None) -> Path:
    """A tiny BERT that knows the words of the rows, as sentence-transformers saves it."""
    texts = [text for row in [*ROWS, *REWORDED] for text in row.values()] + UNKNOWN + [QUERY, DOCUMENT]
    model = encoder(folder.with_name(f"{folder.name}-parts"), texts, prompts or {})
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def without_dropout(source: Path, folder: Path) -> Path:
    """A copy of an encoder; one made anew would have another vocabulary."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    )
    return folder


def encoded(base: Path, prompts: Prompts = _NO_PROMPTS) -> DatasetDict:
    """All rows to train, and the reworded ones to test, as the data stages leave them."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    parts = {}
    for name, rows in (("train", ROWS), ("test", REWORDED)):
        columns = {key: [row[key] for row in rows] for key in ("question", "answer")}
        where = [f"{name}.json row {number}" for number in range(1, len(rows) + 1)]
        plain = Dataset.from_dict({**columns, "where": where})
        parts[name], rejected = encode(plain, tokenizer, LENGTH, find_prompts=lambda: prompts)
        assert not rejected
    return DatasetDict(parts)


def values(folder: Path, base: Path, **sections: Any) -> dict[str, Any]:
    """The values of a config whose run takes a second or two; sections given by name are merged into it."""
    files = {"rows": ROWS, "test": REWORDED, "unknown": [{"question": question} for question in UNKNOWN]}
    for name, rows in files.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    made: dict[str, Any] = {
        "dataset": {"file": f"{folder}/rows.json", "test": f"{folder}/test.json"},
        "model": {"kind": "retriever", "base": str(base), "max_length": LENGTH},
        "train": {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32", "logging_steps": 1},
        "retriever": {"unknown": f"{folder}/unknown.json", "max_wrong": 0.3},
        "evaluate": {"gate_threshold": 0.0},
        "output": f"{folder}/run",
    }
    for name, section in sections.items():
        made[name] = {**made.get(name, {}), **section} if isinstance(section, dict) else section
    return made


def make_config(folder: Path, base: Path, **sections: Any) -> Config:
    return Config.model_validate(values(folder, base, **sections))


def write_config(folder: Path, base: Path, **sections: Any) -> Path:
    """A YAML file, since JSON is YAML."""
    path = folder / "config.yaml"
    path.write_text(json.dumps(values(folder, base, **sections)))
    return path
