"""/predict as a client uses it: the answer, the stream, and what a request may ask for."""

import json
from pathlib import Path

import pytest
from predicting import ANSWER, QUESTION, SECONDS, ask, ask_streamed, without_timing
from served import Served
from tiny import ROWS, endless
from transformers import PreTrainedTokenizerBase

from serve.repository import find


@pytest.mark.parametrize("row", [*ROWS[:2], *ROWS[3:8]], ids=lambda row: row["question"])
def test_it_answers_what_the_model_learned(server: Served, row: dict[str, str]) -> None:
    assert ask(server, row["question"])["answer"] == row["answer"]


def test_an_answer_names_its_model_and_revision(server: Served, published: Path) -> None:
    answer = ask(server)
    assert answer["model"] == str(published)
    assert answer["revision"] == find(str(published), None).revision
    assert answer["revision"].startswith("sha256:")


def test_an_answer_that_ends_by_itself_says_stop_and_counts_its_end_token(
    server: Served, tokenizer: PreTrainedTokenizerBase
) -> None:
    answer = ask(server)
    chat = [{"role": "user", "content": QUESTION}]
    text = str(tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
    prompt, completion = len(tokenizer(text)["input_ids"]), len(tokenizer(ANSWER)["input_ids"]) + 1
    assert (answer["finish_reason"], answer["deadline_reached"]) == ("stop", False)
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def test_null_is_the_published_limit_and_minus_one_is_none(fetched: Path, tmp_path: Path) -> None:
    folder = endless(fetched, tmp_path / "brief", context=128)
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({**config, "max_new_tokens": 5}))
    with Served(folder) as brief:
        assert ask(brief)["usage"]["completion_tokens"] == 5
        assert ask(brief, max_new_tokens=None)["usage"]["completion_tokens"] == 5
        assert ask(brief, max_new_tokens=-1)["usage"]["total_tokens"] == 128


def test_an_answer_that_is_cut_says_length(server: Served) -> None:
    answer = ask(server, max_new_tokens=2)
    assert (answer["answer"], answer["finish_reason"], answer["deadline_reached"]) == ("2 plus", "length", False)
    assert answer["usage"]["completion_tokens"] == 2


def test_no_answer_is_longer_than_published_unless_asked_for(server: Served) -> None:
    unknown = "plus plus plus plus"
    assert ask(server, unknown)["usage"]["completion_tokens"] <= 12
    sampled = [ask(server, temperature=2, seed=seed, max_new_tokens=30) for seed in range(16)]
    assert max(answer["usage"]["completion_tokens"] for answer in sampled) > 12


def test_question_and_answer_together_fill_the_context_and_no_more(idle: Served) -> None:
    tokens = ask(idle, "plus" * 1000, max_new_tokens=1)["usage"]["prompt_tokens"]
    answer = ask(idle, "plus" * 1000 + "+" * (4080 - tokens), max_new_tokens=4096)
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["total_tokens"] == 4096
    assert answer["usage"]["completion_tokens"] < 100


def test_times_are_in_order(server: Served) -> None:
    timing = ask(server)["timing"]
    assert 0 <= timing["queued_ms"] <= timing["first_token_ms"] <= timing["total_ms"] < SECONDS * 1000


def test_a_stream_joined_is_the_answer(server: Served) -> None:
    deltas, done = ask_streamed(server)
    assert len(deltas) > 1
    assert "".join(deltas) == done["answer"] == ANSWER
    assert without_timing(done) == without_timing(ask(server))


def test_the_published_default_is_greedy_and_so_is_temperature_0(server: Served) -> None:
    unknown = ROWS[20]["question"]
    assert without_timing(ask(server, unknown)) == without_timing(ask(server, unknown, temperature=0))
    assert without_timing(ask(server, unknown)) == without_timing(ask(server, unknown, temperature=0, seed=7))


def test_a_seed_makes_sampling_repeatable(server: Served) -> None:
    def answers() -> list[str]:
        return [ask(server, temperature=1.5, seed=seed)["answer"] for seed in range(6)]

    first = answers()
    assert answers() == first
    assert len(set(first)) > 1
    deltas, _ = ask_streamed(server, temperature=1.5, seed=3)
    assert "".join(deltas) == first[3]


def test_without_a_seed_sampling_varies(server: Served) -> None:
    assert len({ask(server, temperature=2)["answer"] for _ in range(6)}) > 1


def test_top_k_1_and_a_tiny_top_p_are_greedy_at_any_temperature(server: Served) -> None:
    assert ask(server, temperature=2, top_k=1)["answer"] == ANSWER
    assert ask(server, temperature=2, top_p=0.0001)["answer"] == ANSWER


@pytest.mark.parametrize(
    "stop, answer, finish",
    [
        (" is", "2 plus 2", "stop"),  # one whole token
        ("plus 2 i", "2 ", "stop"),  # from the middle of a token into another
        ("2", "", "stop"),  # the first token
        (ANSWER, "", "stop"),
        (["4", " is"], "2 plus 2", "stop"),  # the one that comes first, in whatever order they are given
        ([" is", "4"], "2 plus 2", "stop"),
        (["plus 2", "plus"], "2 ", "stop"),
        (["us", "plus", "l"], "2 p", "stop"),  # all in one token; what counts is which is complete first
        (["Ü", "us 2 is 4"], "2 pl", "stop"),
        (" is 5", ANSWER, "stop"),  # begins and does not come
        (["4. And", " 4.!"], ANSWER, "stop"),  # the end is held back until it is the end
        (".", "2 plus 2 is 4", "stop"),
        ([], ANSWER, "stop"),
    ],
)
def test_a_stop_string_cuts_before_its_first_letter(
    server: Served, stop: str | list[str], answer: str, finish: str
) -> None:
    whole = ask(server, stop=stop)
    assert (whole["answer"], whole["finish_reason"]) == (answer, finish)
    deltas, done = ask_streamed(server, stop=stop)
    assert "".join(deltas) == answer
    assert without_timing(done) == without_timing(whole)


def test_what_was_held_back_for_a_stop_string_is_given_at_the_end(server: Served) -> None:
    whole = ask(server, stop=" 2 is", max_new_tokens=3)
    assert (whole["answer"], whole["finish_reason"]) == ("2 plus 2", "length")
    deltas, _ = ask_streamed(server, stop=" 2 is", max_new_tokens=3)
    assert "".join(deltas) == "2 plus 2"
