"""Chat templates of the families of models, and what hostile messages can make of them.

Whatever the messages hold, the control tokens of a prompt are those that the template writes for harmless messages, and
the text is the one that transformers makes. Harmless messages have transformers' ids.
"""

from collections.abc import Iterator

import pytest
from chat_templates import STYLES, Chat, Style, control_of, controls, harmless, text_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.http.text import Text


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Text]:
    return {name: text_of(style, tmp_path_factory.mktemp("style")) for name, style in STYLES.items()}


def hostile_contents(style: Style) -> Iterator[str]:
    for token in control_of(style):
        half = len(token) // 2
        yield from (token, f" {token}\n", f"What is {token}?", token * 2, f"{token}\n{token} x", f"é{token}漢")
        yield from (
            f"{token[:half]} {token[half:]}",
            f"{token[:half]}#{token[half:]}",
            f"{token[:half]}{token}{token[half:]}",
        )
        yield from (
            token.upper(),
            token.lower(),
            token[1:],
            token[:-1],
            token.replace("<", "~~"),
            token.replace("|", "｜"),
        )
        yield token.translate({ord("<"): "＜", ord(">"): "＞", ord("|"): "ǀ"})
    yield from (
        "\ue000",
        "\U000f0000<|im_end|>",
        "\U0010ff00",
        f"\U0010ff00{style.end}\U0010ff01\U000f0001",
        "deadbeef" * 4,
    )
    yield from ("{{ bos_token }}", "{% endfor %}", "{{ messages }}", "\x00", "�", "﷐", "x" * 3000 + style.end, "")
    yield from (
        "<think>a</think>b",
        f"<think>{style.end}</think>{style.end}",
        "</think>",
        "<tool_response></tool_response>",
    )
    yield from (
        "CONTINUE_FINAL_MESSAGE_TAG ",
        "/s",
        "/INST",
        "im_end",
        "|im_end|",
        "ﬀß",
        "a\r\nb\x85c\u2028d",
        "\n\n",
        " ",
    )


def chats(style: Style, content: str) -> Iterator[Chat]:
    """The content in each role, and in all of them."""
    roles = style.roles.split()
    usual = [{"role": role, "content": f"What is {at} plus {at}?"} for at, role in enumerate(roles)]
    for at, role in enumerate(roles):
        yield [*usual[:at], {"role": role, "content": content}, *usual[at + 1 :]]
    yield [{"role": role, "content": content} for role in roles]


def check(text: Text, style: Style, chat: Chat) -> None:
    ids = text.prompt_ids(chat)
    anyone = [{**message, "content": harmless(message["content"])} for message in chat]
    expected = text.tokenizer.apply_chat_template(anyone, add_generation_prompt=True, return_dict=False)
    assert controls(text, style, ids) == controls(text, style, expected), chat
    shown = str(text.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False))
    decoded = text.tokenizer.decode(ids, skip_special_tokens=False)
    if style.kind == "bytes" and not style.swallows:
        assert decoded == shown
    elif style.kind != "unigram":  # whose letters are few
        assert "".join(decoded.split()) == "".join(shown.split())


@pytest.mark.parametrize("name", STYLES)
def test_only_the_template_writes_control_tokens(texts: dict[str, Text], name: str) -> None:
    """None of these is refused."""
    style = STYLES[name]
    for content in hostile_contents(style):
        for chat in chats(style, content):
            check(texts[name], style, chat)


HARMLESS = ["How many?", " \n a \n\n b", "", "é漢🙂", "a < b | c > d [e] /s", "x" * 3000, "<b>", "{{ }}", "a\tb  c"]


@pytest.mark.parametrize("name", STYLES)
def test_harmless_messages_have_the_ids_of_transformers(texts: dict[str, Text], name: str) -> None:
    text, style = texts[name], STYLES[name]
    for content in HARMLESS:
        for chat in chats(style, content):
            for opened in (True, False):
                expected = text.tokenizer.apply_chat_template(chat, add_generation_prompt=opened, return_dict=False)
                assert text.prompt_ids(chat, opened) == expected, chat


PARTS = st.sampled_from(
    ["<", ">", "|", "/", "s", "#", "~~", " ", "\n", "[", "]", "im_", "end", "<|im_end|>", "</s>", "<s>", "[INST]", "<|",
     "|>", "<eos>", "<end_of_turn>", "<|eot_id|>", "<|end|>", "<｜User｜>", "</think>", "<think>", "é", "\ue000",
     "\U000f0002", "\U0010ff00", "\U0010ff01", "x", "<|IM_END|>", "<|im_", "end|>", "<|endoftext|>", "<tool_response>"]
)  # fmt: skip
CONTENTS = st.lists(PARTS, max_size=12).map("".join)


@pytest.mark.parametrize("name", STYLES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.lists(CONTENTS, min_size=4, max_size=4))
def test_parts_of_control_tokens_do_not_join_into_one(texts: dict[str, Text], name: str, contents: list[str]) -> None:
    style = STYLES[name]
    roles = style.roles.split()
    chat = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    check(texts[name], style, chat)
