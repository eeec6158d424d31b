"""Labels and ids, token by token."""

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from job.encode import encode
from job.loss import IGNORED


def rows(*pairs: tuple[str, str]) -> Dataset:
    questions, answers = zip(*pairs, strict=True)
    wheres = [f"row {number}" for number in range(1, len(pairs) + 1)]
    return Dataset.from_dict({"question": list(questions), "answer": list(answers), "where": wheres})


def test_prompt_is_masked_and_answer_and_end_are_trained(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded, rejected = encode(rows(("What is 2 plus 2?", "2 plus 2 is 4.")), tokenizer, 64)
    ids, labels = encoded[0]["input_ids"], encoded[0]["labels"]
    answer = tokenizer("2 plus 2 is 4.", add_special_tokens=False)["input_ids"]
    prompt = ids[: -len(answer) - 1]
    assert rejected == []
    assert tokenizer.decode(prompt) == "Question:\nWhat is 2 plus 2?\n\nAnswer:\n"
    assert labels[: len(prompt)] == [IGNORED] * len(prompt)
    assert labels[len(prompt) :] == ids[len(prompt) :] == [*answer, tokenizer.eos_token_id]


def test_the_prompt_is_what_a_server_sends(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded, _ = encode(rows(("What is DNS?", "A naming system.")), tokenizer, 64)
    chat = [{"role": "user", "content": "What is DNS?"}]
    sent = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert encoded[0]["input_ids"][: len(sent)] == sent


def test_prompt_and_answer_do_not_merge_across_the_seam(tokenizer: PreTrainedTokenizerBase) -> None:
    # "\n" at the end of the prompt and "\n" at the start of the answer could become one token "\n\n"
    encoded, _ = encode(rows(("What?", "\n\nAnswer")), tokenizer, 64)
    trained = [label for label in encoded[0]["labels"] if label != IGNORED]
    assert tokenizer.decode(trained) == "\n\nAnswer<|endoftext|>"


def test_a_row_that_is_too_long_is_rejected_and_never_cut(tokenizer: PreTrainedTokenizerBase) -> None:
    given = rows(("What is 2 plus 2?", "2 plus 2 is 4."), ("What?", "is " * 70))
    encoded, rejected = encode(given, tokenizer, 64)
    assert [row["where"] for row in encoded] == ["row 1"]
    assert rejected[0]["where"] == "row 2"
    assert "64 fit" in rejected[0]["reason"]
    just = len(encoded[0]["input_ids"])
    assert len(encode(given, tokenizer, just)[0]) == 1
    assert len(encode(given, tokenizer, just - 1)[0]) == 0


def test_a_million_characters_are_rejected_without_tokenizing(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded, rejected = encode(rows(("What?", "x" * 1_000_000)), tokenizer, 64)
    assert len(encoded) == 0
    assert rejected[0]["reason"].startswith("too long: 1000000 characters")


def test_the_text_of_a_special_token_is_rejected(tokenizer: PreTrainedTokenizerBase) -> None:
    given = rows(("What is <|endoftext|>?", "The end."), ("What ends a text?", "It is <|endoftext|>."))
    encoded, rejected = encode(given, tokenizer, 64)
    assert len(encoded) == 0
    assert [row["reason"].split(" holds")[0] for row in rejected] == ["the question", "the answer"]


def test_emoji_and_right_to_left_text_come_back_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    answer = "مرحبا 👩‍👩‍👧 café"
    encoded, _ = encode(rows(("?", answer)), tokenizer, 128)
    trained = [label for label in encoded[0]["labels"] if label != IGNORED]
    assert tokenizer.decode(trained[:-1]) == answer
