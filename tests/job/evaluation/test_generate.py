"""Answers: those of plain transformers, and never past the context."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from configs import MakeConfig
from machines import CPU
from tiny import ROWS, endless
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    BloomForCausalLM,
    GenerationConfig,
    LlamaConfig,
    MptConfig,
    OPTConfig,
)

from job import pipeline
from job.data.prompt import prompt_ids
from job.errors import ConfigError
from job.evaluation.evaluate import answer
from job.evaluation.generate import Answer, context, generate


def alone(folder: Path, question: str, room: int | None = None) -> str:
    """One question, by transformers alone."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    more = {} if room is None else {"max_new_tokens": room}
    output = model.generate(**inputs, **more)[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(output, skip_special_tokens=True)).strip()


def test_batched_answers_are_those_of_plain_transformers(fetched: Path) -> None:
    questions = [row["question"] for row in ROWS[5:14]]
    assert answer(fetched, questions, CPU) == [alone(fetched, question) for question in questions]


def test_a_repetition_penalty_does_not_count_padding(published: Path, tmp_path: Path) -> None:
    """The padding token ends answers, too; if padding counted as used, a shorter question's answer would go on."""
    folder = shutil.copytree(published, tmp_path / "penalty")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**settings, "repetition_penalty": 3.0}))
    questions = [ROWS[0]["question"], ROWS[0]["question"] * 3, ROWS[3]["question"]]
    assert answer(folder, questions, CPU) == [alone(folder, question) for question in questions]


@pytest.fixture
def wordy(fetched: Path, tmp_path: Path) -> Path:
    """A model that goes on for ever, and may say as many tokens as its context of 128 has: its answers are 1 1 1 ..."""
    folder = endless(fetched, tmp_path / "wordy", context=128)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        model.transformer.ln_f.bias += model.transformer.wte.weight[tokenizer.encode(" 1")[0]] * 1e4
    model.save_pretrained(folder)
    return folder


def question_of(tokens: int, folder: Path) -> str:
    """A question whose prompt has so many tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = ""
    while True:
        chat = [{"role": "user", "content": text.strip()}]
        length = len(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"])
        if length == tokens:
            return text.strip()
        assert length < tokens
        text += " 1"


def test_an_answer_ends_where_the_context_ends_whatever_stands_beside_it(
    wordy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lengths = [20, 127, 60, 126, 128, 20, 140]
    questions = [question_of(length, wordy) for length in lengths]
    model = AutoModelForCausalLM.from_pretrained(wordy).eval()
    tokenizer = AutoTokenizer.from_pretrained(wordy, padding_side="left")
    found = generate(model, tokenizer, questions, 7, CPU, "wordy")
    rooms = [max(0, 128 - length) for length in lengths]
    assert [given._replace(ids=()) for given in found] == [
        Answer(alone(wordy, question, room) if room else "", False)
        for question, room in zip(questions, rooms, strict=True)
    ]
    assert [len(given.text.split()) for given in found] == [len(given.ids) for given in found] == rooms
    assert "2 questions are as long as the model's context of 128 tokens" in caplog.text
    assert answer(wordy, questions, CPU) == [given.text for given in found]


def test_a_run_whose_answers_may_be_longer_than_the_context(make_config: MakeConfig, tmp_path: Path) -> None:
    """It used to train, and to fail in evaluation at each restart: a prompt and 120 tokens exceed the 128."""
    model, publish = {"max_new_tokens": 120}, {"folder": str(tmp_path / "there")}
    config = make_config(model=model, publish=publish)
    assert "the published copy gives the same answers" in pipeline.run(config)
    answered = json.loads((Path(config.output) / "answers.json").read_text())["model"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "there")
    assert max(map(len, prompt_ids([row["question"] for row in answered], tokenizer))) + 120 > 128


def test_answers_that_leave_no_place_for_a_question_are_refused_before_training(make_config: MakeConfig) -> None:
    config = make_config(model={"max_new_tokens": 4000})
    with pytest.raises(ConfigError, match="model.max_new_tokens: found 4000, .* reads at most 128 tokens"):
        pipeline.run(config)
    assert not {path.name for path in Path(config.output).iterdir()} & {"base", "checkpoints", "model"}


def test_the_context_by_any_name(fetched: Path) -> None:
    class Model:
        def __init__(self, config: object) -> None:
            self.config = config

    assert context(AutoModelForCausalLM.from_pretrained(fetched)) == 128
    assert context(Model(LlamaConfig(max_position_embeddings=77))) == 77  # type: ignore[arg-type]
    assert context(Model(OPTConfig(max_position_embeddings=78))) == 78  # type: ignore[arg-type]
    assert context(Model(MptConfig(max_seq_len=79))) == 79  # type: ignore[arg-type]
    assert context(Model(BloomConfig())) is None  # type: ignore[arg-type]


def test_a_model_without_max_new_tokens_is_refused(fetched: Path) -> None:
    model = BloomForCausalLM(BloomConfig(vocab_size=400, hidden_size=8, n_layer=1, n_head=1)).eval()
    model.generation_config = GenerationConfig(eos_token_id=0, pad_token_id=0)
    tokenizer = AutoTokenizer.from_pretrained(fetched, padding_side="left")
    with pytest.raises(ValueError, match="no max_new_tokens"), torch.no_grad():
        generate(model, tokenizer, ["What?"], 1, CPU, "bloom")
    model.generation_config.max_new_tokens = 5
    assert len(generate(model, tokenizer, ["What?"], 1, CPU, "bloom")) == 1
