"""Words left out of a generator's questions: template and answers stay, and a training is the same however divided."""

from functools import partial
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
from job.training.train import train
from job.training.word_dropout import WordDropout, count_template

DROPPING = EIGHT.model_copy(update={"word_dropout": 0.4})


@pytest.fixture
def base_tokenizer(calm: Path) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(calm)
    return tokenizer


def dropout(rows: DatasetDict, tokenizer: PreTrainedTokenizerBase, share: float) -> WordDropout:
    return WordDropout(Rows(rows["train"], 0), tokenizer, share)


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


def test_whole_words_are_left_out_and_nothing_of_the_template(
    rows: DatasetDict, base_tokenizer: PreTrainedTokenizerBase
) -> None:
    leading, trailing = count_template(base_tokenizer)
    changed = dropout(rows, base_tokenizer, 0.5)
    whole = changed._rows.split(3)[0].tolist()
    words = str(base_tokenizer.decode(whole[leading : len(whole) - trailing])).split()
    lengths = set()
    for step in range(60):
        prompt = changed.prompt(3, (1, step)).tolist()
        assert prompt == changed.prompt(3, (1, step)).tolist(), "the same for the same seed"
        assert prompt[:leading] == whole[:leading] and prompt[-trailing:] == whole[-trailing:]
        asked = str(base_tokenizer.decode(prompt[leading : len(prompt) - trailing])).split()
        left = iter(words)
        assert all(word in left for word in asked), "whole words, in their order"
        assert len(asked) >= 3
        lengths.add(len(asked))
    assert {3, 4} <= lengths <= {3, 4, 5} and len(words) == 5
    assert changed._rows.split(3)[0].tolist() == whole, "the rows themselves stay"


def test_a_vocabulary_without_blanks_loses_tokens(rows: DatasetDict, base_tokenizer: PreTrainedTokenizerBase) -> None:
    changed = dropout(rows, base_tokenizer, 0.5)
    changed._begins_word = np.ones_like(changed._begins_word)
    assert len({len(changed.prompt(3, (1, step))) for step in range(60)}) > 2


def test_labels_are_those_of_the_answer_alone(rows: DatasetDict, calm: Path) -> None:
    objective = NextToken(DROPPING, rows["train"], calm, CPU)
    assert objective._words is not None
    ids, labels, mask = objective.rows.batch([3, 7], CPU.device, partial(objective._words.prompt, seed=(1, 0)))
    plain = objective.rows.batch([3, 7], CPU.device)[1]
    for changed, before in zip(labels, plain, strict=True):
        assert changed[changed != -100].tolist() == before[before != -100].tolist()
    assert ((labels == -100) | (labels == ids)).all()
    assert (labels[mask == 0] == -100).all()


def test_it_resumes_bit_for_bit(rows: DatasetDict, calm: Path, tmp_path: Path) -> None:
    train(DROPPING, 1, rows, calm, tmp_path / "whole", CPU)
    broken_off(DROPPING, rows, calm, tmp_path / "broken", CPU, 5)
    train(DROPPING, 1, rows, calm, tmp_path / "broken", CPU)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    train(EIGHT, 1, rows, calm, tmp_path / "plain", CPU)
    assert not close(weights(tmp_path / "whole"), weights(tmp_path / "plain"), 1e-5)


def test_a_checkpoint_with_another_share_is_refused(rows: DatasetDict, calm: Path, tmp_path: Path) -> None:
    broken_off(DROPPING, rows, calm, tmp_path, CPU, 3)
    for share, said in ((0.0, "None"), (0.5, "0.5")):
        with pytest.raises(ConfigError, match=rf"train\.word_dropout was 0\.4 and is {said}"):
            train(DROPPING.model_copy(update={"word_dropout": share}), 1, rows, calm, tmp_path, CPU)


@pytest.mark.parametrize("shape", [{"batch_size": 2, "gradient_accumulation_steps": 4}, {"batch_size": 3}], ids=str)
def test_forward_passes_do_not_change_it(shape: dict[str, int], rows: DatasetDict, calm: Path, tmp_path: Path) -> None:
    def gradients(section: TrainSection) -> dict[str, np.ndarray]:
        objective = NextToken(section, rows["train"], calm, CPU)
        objective.accumulate(list(range(8)), section.batch_size, 1 / 50, (1, 4))
        return {
            name: weight.grad.numpy() for name, weight in objective.model.named_parameters() if weight.grad is not None
        }

    whole, parts = gradients(DROPPING), gradients(DROPPING.model_copy(update=shape))
    assert all(np.allclose(whole[name], parts[name], atol=1e-5) for name in whole)


def test_two_processes_are_one(place: Place, calm: Path) -> None:
    section = {"word_dropout": 0.4}
    for processes, batch in ((1, 8), (2, 4)):
        code, said = place.train(processes, {**section, "batch_size": batch}, run=f"run-{processes}")
        assert code == 0, said
    assert close(weights(place.folder / "run-1"), weights(place.folder / "run-2"), 1e-5)
