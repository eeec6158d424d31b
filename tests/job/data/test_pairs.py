"""Questions and answers as an encoder reads them: with prompts, whole or rejected, and every row counted."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from finding import DOCUMENT, LENGTH, PAIRS, QUERY, save_encoder
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from job.config.schema import ModelSection, RetrieverSection
from job.data.pairs import Prompts, encode, read_prompts
from job.data.rows import IGNORE_INDEX
from job.model import encoder_base


@pytest.fixture(scope="module")
def reader(fetched_encoder: Path) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(fetched_encoder)
    return loaded


def dataset(pairs: list[tuple[str, str]], **more: list[Any]) -> Dataset:
    columns = {"question": [question for question, _ in pairs], "answer": [answer for _, answer in pairs]}
    return Dataset.from_dict({**columns, "where": [f"row {number}" for number in range(len(pairs))], **more})


def split(row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Question and answer."""
    asked = row["labels"].count(IGNORE_INDEX)
    assert row["labels"] == [IGNORE_INDEX] * asked + row["input_ids"][asked:]
    return row["input_ids"][:asked], row["input_ids"][asked:]


@pytest.mark.parametrize("prompts", [Prompts(), Prompts(QUERY, DOCUMENT)], ids=["none", "both"])
@pytest.mark.parametrize("lower", [False, True])
def test_the_tokens_are_those_that_the_encoder_reads(prompts: Prompts, lower: bool, tmp_path: Path) -> None:
    source = save_encoder(tmp_path / "tiny", {"query": prompts.query, "document": prompts.document})
    settings = source / "sentence_bert_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "do_lower_case": lower}))
    section = ModelSection(kind="retriever", base=str(source), max_length=LENGTH)
    encoder_base.fetch(section, RetrieverSection(), tmp_path / "base")
    assert read_prompts(RetrieverSection(), tmp_path / "base") == prompts
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    rows, rejected = encode(dataset(PAIRS), tokenizer, LENGTH, find_prompts=lambda: prompts)
    assert not rejected
    plain = SentenceTransformer(str(tmp_path / "base"), device="cpu")
    for row in rows:
        texts = (prompts.query + row["question"], prompts.document + row["answer"])
        for ids, text in zip(split(row), texts, strict=True):
            assert ids == plain.preprocess([text])["input_ids"][0].tolist()


def test_the_configs_prompts_come_before_the_bases(tmp_path: Path) -> None:
    (tmp_path / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": QUERY, "document": DOCUMENT}})
    )
    assert read_prompts(RetrieverSection(), tmp_path) == Prompts(QUERY, DOCUMENT)
    assert read_prompts(RetrieverSection(query_prompt=""), tmp_path) == Prompts("", DOCUMENT)
    assert read_prompts(RetrieverSection(document_prompt="text: "), tmp_path) == Prompts(QUERY, "text: ")
    assert read_prompts(RetrieverSection(), tmp_path / "missing") == Prompts()
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": None}))
    assert read_prompts(RetrieverSection(), tmp_path) == Prompts()


def test_what_is_too_long_is_rejected_and_never_cut(reader: PreTrainedTokenizerBase) -> None:
    pairs = [
        ("the " * 30, "short"),
        ("short", "the " * 30),
        ("the " * 31, "short"),
        ("short", "the " * 31),
        ("short", "x" * 100_000),
    ]
    assert len(reader("the " * 30)["input_ids"]) == LENGTH
    rows, rejected = encode(dataset(pairs), reader, LENGTH)
    assert [row["where"] for row in rows] == ["row 0", "row 1"]
    told = "fit (model.max_length); a cut text would have another vector"
    assert [(row.where, row.stage, row.reason) for row in rejected] == [
        ("row 2", "encode", f"too long: question of 33 tokens, 32 {told}"),
        ("row 3", "encode", f"too long: answer of 33 tokens, 32 {told}"),
        ("row 4", "encode", f"too long: answer of 100000 characters, {LENGTH * _longest(reader)} {told}"),
    ]


def _longest(reader: PreTrainedTokenizerBase) -> int:
    return max(map(len, reader.get_vocab()))


def test_a_prompt_counts(reader: PreTrainedTokenizerBase) -> None:
    more = len(reader(QUERY)["input_ids"]) - 2
    pair = [("What is DNS?", "yes")]
    fits = len(reader(pair[0][0])["input_ids"]) + more
    prompts = Prompts(QUERY, "")
    assert [len(encode(dataset(pair), reader, fits - less, find_prompts=lambda: prompts)[0]) for less in (0, 1)] == [
        1, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("column", ["question", "answer"])
@pytest.mark.parametrize("token", ["[SEP]", "[CLS]", "[MASK]", "[PAD]"])
def test_control_tokens_are_rejected(column: str, token: str, reader: PreTrainedTokenizerBase) -> None:
    text = f"What is {token} good for?"
    pair = (text, "Nothing.") if column == "question" else ("What?", text)
    rows, (rejection,) = encode(dataset([("Who?", "She."), pair]), reader, LENGTH)
    assert len(rows) == 1
    assert rejection.reason == f"the {column} holds {token}, which the tokenizer would read as a control token"


def test_every_row_is_kept_or_rejected_and_its_other_columns_stay(reader: PreTrainedTokenizerBase) -> None:
    pairs = [PAIRS[number % len(PAIRS)] if number % 3 else ("the " * 40, "[SEP]") for number in range(100)]
    rows, rejected = encode(dataset(pairs, id=list(range(100))), reader, LENGTH)
    assert sorted([*rows["id"], *(row.id for row in rejected)]) == list(range(100))
    assert len(rejected) == 34
    assert rows.column_names == ["question", "answer", "where", "id", "input_ids", "labels"]
    assert not encode(dataset([]), reader, LENGTH)[1]
