"""The objective of a retriever: its loss against other implementations, and its gradients however a step is divided."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import DatasetDict
from finding import DOCUMENT, QUERY, encoded, save_encoder
from machines import CPU
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from training import SECTION

from job.config.schema import ModelSection, RetrieverSection
from job.data.pairs import Prompts
from job.model import encoder_base
from job.training import contrastive
from job.training.contrastive import Contrastive, cross_entropy

STEP = [0, 2, 3, 4, 6, 7, 9, 11]
"""Rows of a step; 2 and 3, and 6 and 7, have the same answer."""
Gradients = dict[str, torch.Tensor]


def load(base: Path, rows: DatasetDict, **retriever: Any) -> Contrastive:
    return Contrastive(SECTION, rows["train"], base, CPU, RetrieverSection(**retriever))


def gradients(objective: Contrastive, size: int, rows: list[int] = STEP) -> tuple[float, Gradients]:
    """The summed loss of a step, and the gradients of the weights."""
    objective.model.zero_grad()
    loss = objective.accumulate(rows, size, 1 / len(rows), (1, 5))
    assert loss is not None
    return float(loss), _taken(objective)


def _taken(objective: Contrastive) -> Gradients:
    return {name: w.grad.clone() for name, w in objective.model.named_parameters() if w.grad is not None}


def assert_close(left: Gradients, right: Gradients, tolerance: float = 1e-6) -> None:
    assert left.keys() == right.keys()
    assert max(float(gradient.abs().max()) for gradient in left.values()) > 1e-3, "there is something to compare"
    worst = {name: float((left[name] - right[name]).abs().max()) for name in left}
    assert max(worst.values()) <= tolerance, max(worst.items(), key=lambda item: item[1])


def vectors(count: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(count, 16, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_loss_is_that_of_sentence_transformers(tiny_encoder: Path) -> None:
    questions, choices = vectors(7, 1), vectors(7, 2)
    theirs = MultipleNegativesRankingLoss(SentenceTransformer(str(tiny_encoder)), scale=20.0)
    expected = theirs.compute_loss_from_embeddings([questions, choices], torch.empty(0))
    ours = cross_entropy(questions, choices, torch.eye(7, dtype=torch.bool))
    assert float(ours.mean()) == pytest.approx(float(expected), rel=1e-6)


def test_rows_with_the_same_answer_are_neither_right_nor_wrong() -> None:
    questions, choices = vectors(4, 1), vectors(4, 2)
    same = torch.eye(4, dtype=torch.bool)
    same[0, 2] = same[2, 0] = True
    losses = cross_entropy(questions, choices, same)
    for row in range(4):
        others = [column for column in range(4) if column == row or not same[row, column]]
        scores = questions[row] @ choices[others].T / 0.05
        expected = torch.logsumexp(scores, 0) - scores[others.index(row)]
        assert float(losses[row]) == pytest.approx(float(expected), rel=1e-5, abs=1e-6)


def test_one_row_alone_has_no_loss() -> None:
    assert cross_entropy(vectors(1, 1), vectors(1, 2), torch.ones(1, 1, dtype=torch.bool)).tolist() == [0.0]


def test_the_loss_of_a_step_compares_questions_answers_and_each_other(
    calm_encoder: Path, pair_rows: DatasetDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without words left out, on rows with different answers: computed with the library alone."""
    monkeypatch.setattr(contrastive, "_ANSWER_DROPOUT", 0.0)
    rows = [0, 1, 4, 5]
    objective = load(calm_encoder, pair_rows, word_dropout=0.0)
    plain = SentenceTransformer(str(calm_encoder), device="cpu")
    texts = pair_rows["train"].select(rows)
    questions, answers = (
        plain.encode(texts[name][:], convert_to_tensor=True, normalize_embeddings=True)
        for name in ("question", "answer")
    )
    apart = torch.eye(4, dtype=torch.bool)
    pairs = [(questions, answers), (questions, questions), (answers, answers)]
    expected = sum(float(cross_entropy(*pair, apart).sum()) for pair in pairs) / 3
    assert gradients(objective, 4, rows)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_several_forward_passes_give_the_gradients_of_one(
    size: int, calm_encoder: Path, pair_rows: DatasetDict
) -> None:
    objective = load(calm_encoder, pair_rows)
    whole, expected = gradients(objective, len(STEP))
    loss, found = gradients(objective, size)
    assert loss == pytest.approx(whole, rel=1e-6)
    assert_close(found, expected)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_with_dropout_they_are_those_of_one_graph_with_the_same_masks(
    size: int, fetched_encoder: Path, pair_rows: DatasetDict
) -> None:
    objective, seed = load(fetched_encoder, pair_rows), (1, 5)
    loss, found = gradients(objective, size)
    objective.model.zero_grad()
    texts = objective._texts(STEP, seed)
    parts = contrastive._parts(texts, list(range(len(texts))), 4 * size)
    assert len(parts) > 1
    made = torch.cat([objective._encode(texts, part, (*seed, number)) for number, part in enumerate(parts)])
    order = torch.tensor([text for part in parts for text in part]).argsort()
    losses = objective._losses(made[order], objective.rows.answer_ids[STEP])
    (losses.sum() / len(STEP)).backward()
    assert loss == pytest.approx(float(losses.detach().sum()), rel=1e-6)
    assert_close(found, _taken(objective))
    assert gradients(objective, size)[0] == loss, "the same masks each time"


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose prompts differ in length."""
    folder = tmp_path_factory.mktemp("prompted")
    source = save_encoder(folder / "tiny", {"query": QUERY, "document": DOCUMENT})
    section = ModelSection(kind="retriever", base=str(source), max_length=32)
    encoder_base.fetch(section, RetrieverSection(), folder / "base")
    return folder / "base"


def test_words_are_left_out_but_no_prompt_and_no_special_token(prompted: Path) -> None:
    rows = encoded(prompted, Prompts(QUERY, DOCUMENT))
    objective = load(prompted, rows, word_dropout=0.5)
    asking, numbers = objective._tokenizer, list(range(len(objective.rows)))
    lengths = set()
    for seed in range(20):
        texts = np.array(objective._texts(numbers, (1, seed)), dtype=object).reshape(4, -1)
        for kind, prompt in ((0, QUERY), (1, DOCUMENT), (2, DOCUMENT), (3, QUERY)):
            start = asking(prompt)["input_ids"][:-1]
            for number in numbers:
                text = texts[kind][number].tolist()
                assert (text[: len(start)], text[-1]) == (start, asking.sep_token_id)
                assert len(text) - len(start) - 1 >= 3
                if kind < 2:
                    whole = (objective.rows.questions if kind == 0 else objective.rows.answers)[number].tolist()
                    assert _is_part(text, whole)
                    lengths.add((kind, len(text) < len(whole)))
    assert lengths == {(0, True), (0, False), (1, True), (1, False)}


def _is_part(text: list[int], whole: list[int]) -> bool:
    left = iter(whole)
    return all(token in left for token in text)


def test_a_text_of_three_tokens_loses_none() -> None:
    ids = np.array([2, 11, 12, 13, 3])
    random = np.random.default_rng(0)
    assert all(contrastive._drop(ids, 0.9, random, 1, 1).tolist() == ids.tolist() for _ in range(50))
    lengths = {len(contrastive._drop(np.arange(12), 0.5, random, 0, 0)) for _ in range(50)}
    assert len(lengths) > 3, "nor does a tokenizer need special tokens"


def test_no_word_dropout_leaves_the_questions(calm_encoder: Path, pair_rows: DatasetDict) -> None:
    objective = load(calm_encoder, pair_rows, word_dropout=0.0)
    texts = objective._texts(STEP, (1, 1))
    assert all((texts[at] == objective.rows.questions[row]).all() for at, row in enumerate(STEP))


def test_the_question_beside_it_has_the_same_answer(calm_encoder: Path, pair_rows: DatasetDict) -> None:
    objective = load(calm_encoder, pair_rows)
    asked = set()
    for seed in range(20):
        text = objective._texts([2], (1, seed))[3].tolist()
        asked |= {row for row in (2, 3) if text == objective.rows.questions[row].tolist()}
    assert asked == {2, 3}


def test_the_test_loss_is_that_of_questions_among_answers(
    fetched_encoder: Path, pair_rows: DatasetDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the forward passes; and in blocks, each among its own answers."""
    objective = load(fetched_encoder, pair_rows)
    objective.load_test(pair_rows["test"])
    plain = SentenceTransformer(str(fetched_encoder), device="cpu")
    encode = partial(plain.encode, convert_to_tensor=True, normalize_embeddings=True)
    asked, answers = (encode(pair_rows["test"][name][:]) for name in ("question", "answer"))
    for block in (4, 2):
        monkeypatch.setattr(contrastive, "_BLOCK", block)
        parts = [slice(start, start + block) for start in range(0, 4, block)]
        apart = torch.eye(block, dtype=torch.bool)
        expected = sum(float(cross_entropy(asked[part], answers[part], apart).sum()) for part in parts)
        for size in (1, 3, 8):
            total, terms, stopped = objective.test(size, lambda: False).tolist()
            assert (terms, stopped) == (4, 0)
            assert total == pytest.approx(expected, rel=1e-5)
    assert objective.test(1, lambda: True).tolist() == [0, 0, 1]
    assert objective.model.training
