"""The prompt that a base gets: its own chat template or ours, with the opening and the date it needs, or a refusal."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from command_line import job
from hostile import config, edit, refused, section, templated
from tiny import END, ROWS
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from job.data.prompt import prompt_ids
from job.model import base

# --- the tokenizer's own tokens --------------------------------------------------------------------------------------


def with_bos(folder: Path, text: str = "<s>", after: str = "") -> Path:
    """The tokenizer puts `text` before and `after` behind every text by itself, as Llama's and T5's do."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = [word for word in (text, after) if word]
    tokenizer.add_special_tokens({"additional_special_tokens": [word for word in words if word != END]})
    if text:
        tokenizer.add_special_tokens({"bos_token": text})
    pairs = [(word, tokenizer.convert_tokens_to_ids(word)) for word in words]
    single = f"{text}:0 $A:0 {after + ':0' if after else ''}".strip()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=pairs)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_base_whose_tokenizer_begins_with_bos_gets_it_with_our_template(copy: Path, tmp_path: Path) -> None:
    with_bos(copy, after=END)
    base.fetch(section(copy), tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    bos = tokenizer.bos_token_id
    assert tokenizer("x")["input_ids"][0] == bos
    (ids,) = prompt_ids(["What is DNS?"], tokenizer)
    assert (ids[0], ids.count(bos), tokenizer.eos_token_id in ids) == (bos, 1, False)
    told = tokenizer.apply_chat_template([{"role": "user", "content": "What is DNS?"}], add_generation_prompt=True)
    assert told["input_ids"] == ids
    assert tokenizer.decode(ids) == "<s>Question:\nWhat is DNS?\n\nAnswer:\n"


def test_a_tokenizer_that_begins_with_something_else_gets_that(copy: Path, tmp_path: Path) -> None:
    with_bos(copy, "[CLS]")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (copy / name).exists():
            edit(copy / name, bos_token=None)
    base.fetch(section(copy), tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer.decode(prompt_ids(["Why?"], tokenizer)[0]) == "[CLS]Question:\nWhy?\n\nAnswer:\n"


def test_a_tokenizer_that_adds_nothing_gets_nothing(tiny_base: Path, tmp_path: Path) -> None:
    """GPT-2 has a BOS and never writes it."""
    base.fetch(section(tiny_base), tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer.decode(prompt_ids(["Why?"], tokenizer)[0]) == "Question:\nWhy?\n\nAnswer:\n"


def test_a_templates_own_opening_is_left_alone(copy: Path, tmp_path: Path) -> None:
    own = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    templated(with_bos(copy), own)
    base.fetch(section(copy), tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert tokenizer.chat_template == own
    assert tokenizer.decode(prompt_ids(["Why?"], tokenizer)[0]) == "<s>[user]Why?"


def word_level(folder: Path, words: list[str]) -> PreTrainedTokenizerBase:
    vocabulary = {word: number for number, word in enumerate(["[UNK]", END, *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=END, unk_token="[UNK]")
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_a_tokenizer_that_cannot_write_our_template(copy: Path, tmp_path: Path) -> None:
    word_level(copy, ["what", "is", "dns"])
    assert "cannot write 'Question:'" in refused(copy, tmp_path)


def test_a_tokenizer_without_an_end_of_text(copy: Path, tmp_path: Path) -> None:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([row["question"] for row in ROWS], vocab_size=400, show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer).save_pretrained(copy)
    assert "has no end-of-sequence token" in refused(copy, tmp_path)


# --- chat templates --------------------------------------------------------------------------------------------------


CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
ENDED = "{{ '<a>' if add_generation_prompt }}"
REFUSED_TEMPLATES: dict[str, tuple[str | dict[str, str], str]] = {
    "no syntax": ("{% for m in messages %}{{ m.content }}", "does not accept a single question"),
    "needs a system message": (
        "{% if messages[0].role != 'system' %}{{ raise_exception('a system message must come first') }}{% endif %}",
        "does not accept a single question: a system message must come first",
    ),
    "parts": ("{{ messages[0].content[0].text }}" + ENDED, "drops or changes the question"),
    "undefined": ("{{ messages[0].content.x.y }}", "does not accept a single question"),
    "drops the question": ("Be brief.{{ '<a>' if add_generation_prompt }}", "drops or changes the question"),
    "cuts the question": ("{{ messages[0].content[:20] }}" + ENDED, "drops or changes the question"),
    "upper case": ("{{ messages[0].content | upper }}" + ENDED, "drops or changes the question"),
    "escaped": ("{{ messages[0].content | e }}" + ENDED, "drops or changes the question"),
    "one line": ("{{ messages[0].content.split() | join(' ') }}" + ENDED, "drops or changes the question"),
    "by chance": (
        "{{ ['A', 'B', 'C', 'D'] | random }}{{ messages[0].content }}" + ENDED,
        "renders a different prompt each time",
    ),
    "thinks": (
        CHATML.replace("<|assistant|>\n", "<|assistant|>\n<think>\n"),
        "ends its prompt inside a reasoning block",
    ),
    "thinks on one line": (
        CHATML.replace("<|assistant|>\n", "<|assistant|><think>"),
        "ends its prompt inside a reasoning block",
    ),
    "no place": (
        "{% for m in messages %}{{ m.content }}{{ '<last>' if loop.last }}{% endfor %}",
        "does not show where an answer begins",
    ),
    "named": ({"rag": CHATML, "tool_use": CHATML}, "several chat templates and none named default: rag, tool_use"),
}


@pytest.mark.parametrize("name", REFUSED_TEMPLATES)
def test_a_template_that_is_not_understood_is_refused_or_replaced(name: str, copy: Path, tmp_path: Path) -> None:
    template, says = REFUSED_TEMPLATES[name]
    templated(copy, template)
    line = refused(copy, tmp_path)
    assert says in line
    assert "model.chat_template=kickoff" in line
    facts = base.fetch(section(copy, chat_template="kickoff"), tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert facts.chat_template == "Kickoff's"
    assert tokenizer.decode(prompt_ids(["Why?"], tokenizer)[0]) == "Question:\nWhy?\n\nAnswer:\n"


TAKEN_TEMPLATES = {
    "names the tag of thoughts": CHATML.replace("}}<|end|>", "}}\n(No <think> please; <thinking> is off.)<|end|>"),
    "tells where to think": CHATML.replace(
        "<|assistant|>", "Think inside <think></think> or <think>, then:<|assistant|>"
    ),
    "another opening of a conversation": "{{ 'Chat.' if messages | length > 1 else 'One.' }}"
    "{% for m in messages %}{{ m.content }}{{ '</q><a>' if m.role == 'user' }}{% endfor %}",
    "last message only": "{{ '<q>' + messages[-1].content + '</q><a>' }}",
    "chatml": CHATML,
    "closed thought": CHATML.replace("<|assistant|>\n{% endif", "<|assistant|>\n<think>\n\n</think>\n\n{% endif"),
    "no generation prompt": "{% for m in messages %}[{{ m.role }}] {{ m.content }} [/]{% endfor %}",
    "trimmed": "{{ '<q>' + messages[0].content | trim + '</q>' }}{{ messages[1].content if messages | length > 1 }}",
    "only user turns": "{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('no') }}{% endif %}"
    "{{ m.content }}{% endfor %}" + ENDED,
}


@pytest.mark.parametrize("name", TAKEN_TEMPLATES)
def test_a_template_of_another_form_is_kept(name: str, copy: Path, tmp_path: Path) -> None:
    templated(copy, TAKEN_TEMPLATES[name])
    facts = base.fetch(section(copy), tmp_path / "base")
    assert facts.chat_template == "the base model's own"
    assert AutoTokenizer.from_pretrained(tmp_path / "base").chat_template == TAKEN_TEMPLATES[name]


def test_a_template_of_the_last_message_is_for_single_questions(
    copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    templated(copy, TAKEN_TEMPLATES["last message only"])
    base.fetch(section(copy), tmp_path / "base")
    assert "only single questions can be asked" in caplog.text
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "base").decode(
            prompt_ids(["Why?"], AutoTokenizer.from_pretrained(tmp_path / "base"))[0]
        )
        == "<q>Why?</q><a>"
    )


def test_of_named_templates_the_default_alone_is_published(copy: Path, tmp_path: Path) -> None:
    templated(copy, {"default": CHATML, "tool_use": "{{ tools }}"})
    base.fetch(section(copy), tmp_path / "base")
    assert AutoTokenizer.from_pretrained(tmp_path / "base").chat_template == CHATML
    assert not (tmp_path / "base" / "additional_chat_templates").exists()


LLAMA_31 = (
    "{%- if not date_string is defined %}\n    {%- if strftime_now is defined %}\n"
    '        {%- set date_string = strftime_now("%d %b %Y") %}\n    {%- else %}\n'
    '        {%- set date_string = "26 Jul 2024" %}\n    {%- endif %}\n{%- endif %}\n'
    "{{- 'Cutting Knowledge Date: December 2023\\nToday Date: ' + date_string + '\\n\\n' }}\n"
    "{%- for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ '<a>' if add_generation_prompt }}"
)
DATED = {
    "Llama 3.1": LLAMA_31,
    "in a macro": "{% macro day() %}{{ strftime_now('%Y-%m-%d') }}{% endmacro %}\n\n"
    "  {% if true %}{{ day() }}{% endif %}"
    "{% for m in messages %}{{ m.content }}{% endfor %}" + ENDED,
    "weekday and hour": "{{ strftime_now('It is %A, %-d. %B, %H h') }}\n{{ messages[0].content }}" + ENDED,
    "format in a variable": "\n {% set form = '%B %d, %Y' %}\n{{ strftime_now(form) }} {{ messages[0].content }}"
    + ENDED,
}


@pytest.mark.parametrize("name", DATED)
def test_a_date_in_a_template_is_fixed(
    name: str, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    question = [{"role": "user", "content": "Why?"}]
    templated(copy, DATED[name])
    before = AutoTokenizer.from_pretrained(copy).apply_chat_template(question, tokenize=False)
    facts = base.fetch(section(copy), tmp_path / "base")
    today = datetime.now()
    assert facts.template_date == today.date().isoformat()
    assert f"fixed to {facts.template_date}" in caplog.text

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Later":
            return cls(2031, 2, 3, 4, 5, 6)

    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    rendered = AutoTokenizer.from_pretrained(tmp_path / "base").apply_chat_template(question, tokenize=False)
    assert rendered == before
    # a model that is fine-tuned once more keeps the date of its first time
    again = base.fetch(section(tmp_path / "base"), tmp_path / "again")
    kept = AutoTokenizer.from_pretrained(tmp_path / "again")
    assert kept.apply_chat_template(question, tokenize=False) == before
    assert kept.chat_template.count("macro strftime_now(") == 1
    assert again.template_date is None


def test_a_template_without_a_date_has_none(copy: Path, tmp_path: Path) -> None:
    templated(copy, CHATML)
    assert base.fetch(section(copy), tmp_path / "base").template_date is None


def test_bos_and_date_all_the_way_to_the_published_folder(copy: Path, tmp_path: Path) -> None:
    with_bos(copy)
    templated(copy, "{{ bos_token }}{{ strftime_now('%d %b %Y') }}\n{{ messages[0].content }}\n" + ENDED)
    ended = job("run", config(tmp_path, copy))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    facts = json.loads((tmp_path / "run" / "base" / "base.json").read_text())
    published = AutoTokenizer.from_pretrained(tmp_path / "published")
    assert "macro strftime_now(" in published.chat_template
    assert f"fixed to {facts['template_date']}" in ended.stdout
