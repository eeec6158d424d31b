"""Labels and ids, token by token."""

from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase

from job.config.schema import CleanSection
from job.data.clean.clean import clean
from job.data.encode import encode
from job.data.rows import IGNORE_INDEX


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
    assert labels[: len(prompt)] == [IGNORE_INDEX] * len(prompt)
    assert labels[len(prompt) :] == ids[len(prompt) :] == [*answer, tokenizer.eos_token_id]


def test_the_prompt_is_what_a_server_sends(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded, _ = encode(rows(("What is DNS?", "A naming system.")), tokenizer, 64)
    chat = [{"role": "user", "content": "What is DNS?"}]
    sent = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert encoded[0]["input_ids"][: len(sent)] == sent


LINES = "Fix this:\n\n    def f(x):\n\treturn  x\n  # end"


def test_lines_and_indentation_of_a_question_are_what_a_server_sends_and_what_is_trained(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    cleaned, _ = clean(CleanSection(), rows((f"\n{LINES} \n", f"\r\n# Fixed\r\n{LINES}\r\n")))
    encoded, _ = encode(cleaned, tokenizer, 256)
    chat = [{"role": "user", "content": LINES}]
    sent = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert encoded[0]["input_ids"][: len(sent)] == sent
    assert tokenizer.decode(sent) == f"Question:\n{LINES}\n\nAnswer:\n"
    trained = [label for label in encoded[0]["labels"] if label != IGNORE_INDEX]
    assert tokenizer.decode(trained) == f"# Fixed\n{LINES}<|endoftext|>"


def test_prompt_and_answer_do_not_merge_across_the_seam(tokenizer: PreTrainedTokenizerBase) -> None:
    # "\n" at the end of the prompt and "\n" at the start of the answer could become one token "\n\n"
    encoded, _ = encode(rows(("What?", "\n\nAnswer")), tokenizer, 64)
    trained = [label for label in encoded[0]["labels"] if label != IGNORE_INDEX]
    assert tokenizer.decode(trained) == "\n\nAnswer<|endoftext|>"


def test_a_row_that_is_too_long_is_rejected_and_never_cut(tokenizer: PreTrainedTokenizerBase) -> None:
    given = rows(("What is 2 plus 2?", "2 plus 2 is 4."), ("What?", "is " * 70))
    encoded, rejected = encode(given, tokenizer, 64)
    assert [row["where"] for row in encoded] == ["row 1"]
    assert rejected[0].where == "row 2"
    assert "64 fit" in rejected[0].reason
    just = len(encoded[0]["input_ids"])
    assert len(encode(given, tokenizer, just)[0]) == 1
    assert len(encode(given, tokenizer, just - 1)[0]) == 0


def test_a_million_characters_are_rejected_without_tokenizing(tokenizer: PreTrainedTokenizerBase) -> None:
    encoded, rejected = encode(rows(("What?", "x" * 1_000_000)), tokenizer, 64)
    assert len(encoded) == 0
    assert rejected[0].reason.startswith("too long: 1000000 characters")


def test_the_text_of_a_special_token_is_rejected(tokenizer: PreTrainedTokenizerBase) -> None:
    given = rows(("What is <|endoftext|>?", "The end."), ("What ends a text?", "It is <|endoftext|>."))
    encoded, rejected = encode(given, tokenizer, 64)
    assert len(encoded) == 0
    assert [row.reason.split(" holds")[0] for row in rejected] == ["the question", "the answer"]


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BUILT = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content | trim + '<|' + 'end' + '|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|' + 'assistant|>\n' }}{% endif %}"
)


@pytest.fixture
def marked(fetched: Path) -> PreTrainedTokenizerBase:
    """A tokenizer with tokens as Llama 3, Qwen, Phi and Gemma have them; none is among `all_special_tokens`."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(fetched)
    special = ["<|eot_id|>", "<|start_header_id|>", "<|im_end|>", "<|end|>"]
    tokenizer.add_tokens([AddedToken(token, special=True) for token in special])
    plain = ["<|im_start|>", "<|user|>", "<|assistant|>", "<table>", "    "]
    tokenizer.add_tokens([AddedToken(token, special=False) for token in plain])
    assert not {*special, *plain} & set(tokenizer.all_special_tokens)
    return tokenizer


@pytest.mark.parametrize(
    ("template", "mark", "rejected"),
    [
        (CHATML, "<|eot_id|>", True),
        (CHATML, "<|start_header_id|>", True),
        (CHATML, "<|im_start|>", True),
        (CHATML, "<|endoftext|>", True),
        (CHATML, "<|user|>", False),
        (CHATML, "<table>", False),
        (CHATML, "    ", False),
        (BUILT, "<|user|>", True),
        (BUILT, "<|assistant|>", True),
        (BUILT, "<|im_start|>", False),
    ],
)
def test_control_tokens_are_found_in_every_part_of_the_tokenizer(
    marked: PreTrainedTokenizerBase, template: str, mark: str, rejected: bool
) -> None:
    marked.chat_template = template
    given = rows((f"What is{mark}it?", "That."), ("What?", f"It{mark}is."), ("What?", f"{mark}It is."))
    _, found = encode(given, marked, 256)
    assert len(found) == (3 if rejected else 0)
    assert all(mark in row.reason for row in found)


QWEN3 = (
    "{# tools are called in <tool_call></tool_call> #}"
    "{% if tools %}Call one within <tool_call></tool_call>, answered in <tool_response>.{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}"
    "{% set text = m.content.split('</think>')[-1].lstrip() %}{% if loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ text }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
R1 = (
    "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% else %}<|assistant|>"
    "{{ m.content.split('</think>')[-1] }}<|endoftext|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.mark.parametrize(("template", "mark"), [(QWEN3, "<|im_start|>"), (R1, "<|assistant|>"), (R1, "<|user|>")])
def test_answers_may_contain_reasoning_and_tool_calls(
    marked: PreTrainedTokenizerBase, template: str, mark: str
) -> None:
    own = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>"]
    marked.add_tokens([AddedToken(token, special=False) for token in own])
    marked.chat_template = template
    answers = ["<think>\n2 and 2\n</think>\n\n4", '<tool_call>{"name": "add"}</tool_call>', "<tool_response>4"]
    given = rows(*(("What?", answer) for answer in answers), ("What?", f"<think></think>{mark}4"))
    encoded, rejected = encode(given, marked, 256)
    assert encoded["answer"][:] == answers
    trained = [label for label in encoded[0]["labels"] if label != IGNORE_INDEX]
    assert trained.count(marked.convert_tokens_to_ids("</think>")) == 1
    assert mark in rejected[0].reason


def test_a_thought_that_is_flagged_as_special_would_be_lost_from_answers(marked: PreTrainedTokenizerBase) -> None:
    marked.add_tokens([AddedToken("<think>", special=True)])
    assert len(encode(rows(("What?", "<think>4")), marked, 256)[1]) == 1


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (CHATML, "<|endoftext|>"),
        (CHATML, "<|im_end|>"),
        (CHATML, " <|im_end|>\n<|endoftext|>\n "),
        (CHATML, "<|endoftext|><|endoftext|>"),
        (BUILT, "<|end|>\n"),
    ],
)
def test_an_end_token_after_an_answer_is_removed(marked: PreTrainedTokenizerBase, template: str, end: str) -> None:
    marked.chat_template = template
    counted: Counter[str] = Counter()
    given = rows(("What?", f"It is.{end}"), ("Who?", "Me."), ("Which?", f"This{end} one."), ("Why?", end))
    encoded, rejected = encode(given, marked, 256, counted)
    assert encoded["answer"][:] == ["It is.", "Me."]
    assert counted["mended"] == 1
    trained = [label for label in encoded[0]["labels"] if label != IGNORE_INDEX]
    assert marked.decode(trained) == "It is.<|endoftext|>"
    assert [row.where for row in rejected] == ["row 3", "row 4"]
    assert rejected[1].reason == "the answer is only the end-of-sequence token"


def test_a_row_with_the_end_token_of_another_turn_is_rejected(marked: PreTrainedTokenizerBase) -> None:
    marked.chat_template = CHATML
    assert len(encode(rows(("What?", "It is.<|eot_id|>"), ("Who?<|endoftext|>", "Me.")), marked, 256)[1]) == 2


def test_control_tokens_are_found_if_the_template_refuses_an_answer(marked: PreTrainedTokenizerBase) -> None:
    marked.chat_template = "{% if messages | length > 1 %}{{ raise_exception('one') }}{% endif %}<|im_start|>x"
    assert len(encode(rows(("What?", "It <|im_start|> is.")), marked, 256)[1]) == 1


def test_other_columns_pass_through(tokenizer: PreTrainedTokenizerBase) -> None:
    given = rows(("What?", "That."), ("Who?", "x" * 9999)).add_column("id", [7, 8]).add_column("group", ["a", None])
    encoded, rejected = encode(given, tokenizer, 64)
    assert (encoded["id"][:], encoded["group"][:]) == ([7], ["a"])
    assert [row.id for row in rejected] == [8]


def test_emoji_and_right_to_left_text_come_back_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    answer = "مرحبا 👩‍👩‍👧 café"
    encoded, _ = encode(rows(("?", answer)), tokenizer, 128)
    trained = [label for label in encoded[0]["labels"] if label != IGNORE_INDEX]
    assert tokenizer.decode(trained[:-1]) == answer
