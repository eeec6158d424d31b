"""The mean probability of the tokens of an answer: that of transformers, in any batch and in several halves."""

import math
from pathlib import Path

import pytest
import torch
from machines import CPU
from tiny import ROWS
from transformers import AutoModelForCausalLM, AutoTokenizer

from job.data.prompt import prompt_ids
from job.evaluation.generate import Answer, generate
from job.evaluation.likelihood import mean_probabilities
from job.model.loss import AnswerLoss, PlainLoss

QUESTIONS = [row["question"] for row in ROWS[4:12]]


def by_transition_scores(folder: Path, question: str, most: int) -> float:
    """One question, by transformers alone."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor(prompt_ids([question], tokenizer))
    output = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, return_dict_in_generate=True, output_logits=True
    )
    scores = model.compute_transition_scores(output.sequences, output.logits, normalize_logits=True)
    return math.exp(float(scores.mean()))


@pytest.mark.parametrize("most", [3, 12])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize("kind", [PlainLoss, AnswerLoss])
def test_that_of_transformers(kind: type[PlainLoss | AnswerLoss], batch_size: int, most: int, published: Path) -> None:
    """Of answers that end, and of answers that are cut."""
    model = AutoModelForCausalLM.from_pretrained(published).eval()
    tokenizer = AutoTokenizer.from_pretrained(published, padding_side="left")
    model.generation_config.max_new_tokens = most
    given = generate(model, tokenizer, QUESTIONS, batch_size, CPU, "tiny")
    assert {answer.ended for answer in given} == {most == 12}
    for answer in given:
        assert (answer.ids[-1] == tokenizer.eos_token_id) == answer.ended
    prompts = prompt_ids(QUESTIONS, tokenizer)
    ids = [answer.ids for answer in given]
    found = mean_probabilities(kind(model), prompts, ids, tokenizer.pad_token_id, batch_size, CPU)
    expected = [by_transition_scores(published, question, most) for question in QUESTIONS]
    assert found == pytest.approx(expected, abs=1e-5)


def test_an_answer_without_a_token_has_none_and_one_of_the_end_alone_has_one(published: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(published).eval(), AutoTokenizer.from_pretrained(published)
    prompts = prompt_ids(QUESTIONS[:2], tokenizer)
    nothing, end = mean_probabilities(PlainLoss(model), prompts, [(), (tokenizer.eos_token_id,)], 0, 8, CPU)
    assert nothing is None
    with torch.no_grad():
        logits = model(torch.tensor([prompts[1]])).logits[0, -1]
    assert end == pytest.approx(float(logits.softmax(-1)[tokenizer.eos_token_id]), abs=1e-6)
    assert mean_probabilities(PlainLoss(model), [], [], 0, 8, CPU) == []
    assert Answer("", False).ids == ()
