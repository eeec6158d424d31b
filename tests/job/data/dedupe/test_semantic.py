"""Semantic repeats with a small encoder made here: what it embeds alike is a repeat, and only that."""

from pathlib import Path

import datasets
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from job.config.schema import DedupeSection
from job.data.dedupe import contrast, dedupe, semantic
from job.errors import ConfigError

WORDS = [
    *("who", "what", "when", "where", "is", "was", "won", "lost", "the", "a"),
    *("cup", "match", "team", "goal", "ball", "in", "of"),
]


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    """A BERT whose tokenizer folds case, so "Who won the cup" and "who won the CUP" are the same to it."""
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_repeat_names_the_earlier_row_and_both_texts_count(encoder: str) -> None:
    rows = datasets.Dataset.from_dict(
        {
            "question": [
                "Who won the cup",
                "where is the ball",
                "who won the CUP",
                "who won the cup",
                "Who Won the cup",
            ],
            "answer": ["the team", "in the goal", "the TEAM", "a goal was lost in a match", "The Team"],
        }
    )
    found = list(semantic.find_repeats(encoder, rows, 0.999))
    assert [(before, row) for before, row, _ in found] == [(0, 2), (0, 4)]
    assert all(cosine == pytest.approx(1.0, abs=1e-5) for *_, cosine in found)


def test_padding_changes_nothing(encoder: str) -> None:
    questions = ["who won the cup", "what is the ball in the goal of the team where a match was lost"]
    together = datasets.Dataset.from_dict({"question": [*questions, questions[0]], "answer": ["a"] * 3})
    assert [(before, row) for before, row, _ in semantic.find_repeats(encoder, together, 0.9999)] == [(0, 2)]


def test_a_model_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"question": ["a"], "answer": ["b"]})
    with pytest.raises(ConfigError, match="dedupe.semantic_model: .* cannot be loaded as an encoder"):
        list(semantic.find_repeats(str(tmp_path), rows, 0.9))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The store closes at 6.", "The store closes at 7."),
        ("You may return it.", "You may not return it."),
        ("It is allowed.", "It isn't allowed."),
        ("Das ist erlaubt.", "Das ist nicht erlaubt."),
        ("Com açúcar?", "Sem açúcar?"),
        ("可以退货。", "不可以退货。"),
        ("返品できます。", "返品できません。"),
        ("คืนได้", "ไม่คืนได้"),
        ("반품할 수 있습니다", "반품할 수 없습니다"),
        ("يمكن الإرجاع", "لا يمكن الإرجاع"),
        ("Version 2.0", "Version 2.1"),
    ],
)
def test_a_number_or_a_negation_is_another_fact(one: str, other: str) -> None:
    assert contrast.differ(one, other)
    assert not contrast.differ(one, one.upper())


def test_rows_that_a_model_takes_for_the_same_and_that_differ_in_a_fact_stay(encoder: str) -> None:
    """The encoder knows neither "not" nor numbers: to it all of these are alike."""
    questions = ["who won the cup 4", "who won the cup 5", "who never won the cup 4", "Who won THE cup 4"]
    rows = datasets.Dataset.from_dict(
        {"question": questions, "answer": ["the team"] * 4, "where": [f"row {number}" for number in range(1, 5)]}
    )
    section = DedupeSection(near=False, semantic_model=encoder, semantic_threshold=0.5)
    kept, _, rejected, found = dedupe.dedupe(section, rows)
    assert kept["question"][:] == questions[:3]
    assert [row.where for row in rejected] == ["row 4"]
    named = {tuple(row.where for row in pair.rows) for pair in found.doubtful}
    assert named == {("row 1", "row 2"), ("row 1", "row 3")}
