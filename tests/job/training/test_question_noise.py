"""Noise in a generator's questions: the template and the answers stay, and however a training is divided, it is one."""

from pathlib import Path

import numpy as np
import pytest
from datasets import DatasetDict
from machines import CPU
from resumed import EIGHT, Place, broken_off, close
from training import same, weights
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from job.config.schema import TrainSection
from job.data.prompt import prompt_ids
from job.errors import ConfigError
from job.training.batches import Rows
from job.training.next_token import NextToken
from job.training.question_noise import QuestionNoise, count_template, drop
from job.training.train import train

NOISY = EIGHT.model_copy(update={"word_dropout": 0.3, "word_noise": 0.3})


@pytest.fixture
def base_tokenizer(calm: Path) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(calm)
    return tokenizer


def noise(rows: DatasetDict, tokenizer: PreTrainedTokenizerBase, dropped: float, replaced: float) -> QuestionNoise:
    return QuestionNoise(Rows(rows["train"], 0), tokenizer, dropped, replaced)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% for message in messages %}[{{ message.content }}]{% endfor %}", ("[", "]")),
        ("{% for message in messages %}{{ message.content }}{% endfor %}", ("", "")),
        ("Question: {{ messages[0].content }} Answer:", ("Question:", " Answer:")),
    ],
)
def test_the_templates_tokens_are_counted(
    template: str, expected: tuple[str, str], base_tokenizer: PreTrainedTokenizerBase
) -> None:
    base_tokenizer.chat_template = template
    leading, trailing = count_template(base_tokenizer)
    (prompt,) = prompt_ids(["What is 2 plus 2?"], base_tokenizer)
    parts = prompt[:leading], prompt[len(prompt) - trailing :]
    assert tuple(str(base_tokenizer.decode(part)) for part in parts) == expected


def test_a_prompt_keeps_the_template_and_its_tokens_order(
    rows: DatasetDict, base_tokenizer: PreTrainedTokenizerBase
) -> None:
    leading, trailing = count_template(base_tokenizer)
    changed = noise(rows, base_tokenizer, 0.5, 0.0)
    lengths = set()
    for step in range(30):
        whole = changed._rows.split(3)[0].tolist()
        prompt = changed.reword(3, (1, step)).tolist()
        assert prompt == changed.reword(3, (1, step)).tolist(), "the same for the same seed"
        assert prompt[:leading] == whole[:leading] and prompt[-trailing:] == whole[-trailing:]
        left = iter(whole)
        assert all(token in left for token in prompt)
        lengths.add(len(prompt))
    assert len(lengths) > 2


def test_replaced_tokens_are_those_of_other_questions(
    rows: DatasetDict, base_tokenizer: PreTrainedTokenizerBase
) -> None:
    leading, trailing = count_template(base_tokenizer)
    changed = noise(rows, base_tokenizer, 0.0, 0.5)
    whole = changed._rows.split(3)[0]
    known = {token for row in range(30) for token in changed._rows.split(row)[0].tolist()}
    differing = np.zeros(len(whole))
    for step in range(200):
        prompt = changed.reword(3, (1, step))
        assert len(prompt) == len(whole)
        differing += prompt != whole
        assert set(prompt.tolist()) <= known
    assert not differing[:leading].any() and not differing[len(whole) - trailing :].any()
    assert (differing[leading : len(whole) - trailing] > 20).all()
    assert changed._rows.split(3)[0].tolist() == whole.tolist(), "the rows themselves stay"


def test_labels_are_those_of_the_answer_alone(rows: DatasetDict, calm: Path) -> None:
    objective = NextToken(NOISY, rows["train"], calm, CPU)
    assert objective._noise is not None
    ids, labels, mask = objective.rows.batch([3, 7], CPU.device, lambda row: objective._noise.reword(row, (1, 0)))
    plain = objective.rows.batch([3, 7], CPU.device)[1]
    for changed, before in zip(labels, plain, strict=True):
        assert changed[changed != -100].tolist() == before[before != -100].tolist()
    assert ((labels == -100) | (labels == ids)).all()
    assert (labels[mask == 0] == -100).all()


def test_a_question_of_three_tokens_loses_none() -> None:
    ids = np.array([2, 11, 12, 13, 3])
    random = np.random.default_rng(0)
    assert all(drop(ids, 0.9, random, 1, 1).tolist() == ids.tolist() for _ in range(50))


def test_it_resumes_bit_for_bit(rows: DatasetDict, calm: Path, tmp_path: Path) -> None:
    train(NOISY, 1, rows, calm, tmp_path / "whole", CPU)
    broken_off(NOISY, rows, calm, tmp_path / "broken", CPU, 5)
    train(NOISY, 1, rows, calm, tmp_path / "broken", CPU)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    train(EIGHT, 1, rows, calm, tmp_path / "plain", CPU)
    assert not close(weights(tmp_path / "whole"), weights(tmp_path / "plain"), 1e-5)


def test_a_checkpoint_with_other_noise_is_refused(rows: DatasetDict, calm: Path, tmp_path: Path) -> None:
    broken_off(NOISY, rows, calm, tmp_path, CPU, 3)
    for changed in ({"word_dropout": 0.0}, {"word_noise": 0.5}):
        with pytest.raises(ConfigError, match=r"train\.word_\w+ was 0\.3 and is"):
            train(NOISY.model_copy(update=changed), 1, rows, calm, tmp_path, CPU)


@pytest.mark.parametrize("shape", [{"batch_size": 2, "gradient_accumulation_steps": 4}, {"batch_size": 3}], ids=str)
def test_forward_passes_do_not_change_it(shape: dict[str, int], rows: DatasetDict, calm: Path, tmp_path: Path) -> None:
    def gradients(section: TrainSection) -> dict[str, np.ndarray]:
        objective = NextToken(section, rows["train"], calm, CPU)
        objective.accumulate(list(range(8)), section.batch_size, 1 / 50, (1, 4))
        return {
            name: weight.grad.numpy() for name, weight in objective.model.named_parameters() if weight.grad is not None
        }

    whole, parts = gradients(NOISY), gradients(NOISY.model_copy(update=shape))
    assert all(np.allclose(whole[name], parts[name], atol=1e-5) for name in whole)


def test_two_processes_are_one(place: Place, calm: Path) -> None:
    section = {"word_dropout": 0.3, "word_noise": 0.3}
    for processes, batch in ((1, 8), (2, 4)):
        code, said = place.train(processes, {**section, "batch_size": batch}, run=f"run-{processes}")
        assert code == 0, said
    assert close(weights(place.folder / "run-1"), weights(place.folder / "run-2"), 1e-5)
