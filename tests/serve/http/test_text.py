"""Ids to text and back: whole characters, clean cuts at stop strings, special tokens only where the template says."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.http.text import Text

STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
NO_FIXTURE_WARNING = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)


@pytest.fixture(scope="module")
def text(published: Path) -> Text:
    return Text(published)


def ids_of(text: Text, string: str) -> list[int]:
    ids: list[int] = text.tokenizer(string, add_special_tokens=False)["input_ids"]
    return ids


def pieces_of(text: Text, ids: list[int], stop: list[str]) -> tuple[list[str], bool]:
    """What a reader gets, token after token, as an answer makes it."""
    decoder = text.decoder(stop)
    pieces = []
    for id in ids:
        pieces.append(decoder.add(id))
        if decoder.stopped:
            return pieces, True
    return [*pieces, decoder.end()], decoder.stopped


@NO_FIXTURE_WARNING
@given(string=STRINGS)
def test_pieces_joined_are_the_text_and_each_is_whole(text: Text, string: str) -> None:
    string = string.replace("\ufffd", "")
    pieces, _ = pieces_of(text, ids_of(text, string), [])
    assert "".join(pieces) == string
    assert not any("\ufffd" in piece for piece in pieces)


@NO_FIXTURE_WARNING
@given(
    string=STRINGS, stops=st.lists(st.text(st.sampled_from("ab é🙂"), min_size=1, max_size=4), min_size=1, max_size=3)
)
def test_an_answer_ends_before_the_stop_string_that_is_complete_first(
    text: Text, string: str, stops: list[str]
) -> None:
    string = string.replace("\ufffd", "") + "ab é🙂ab"
    pieces, stopped = pieces_of(text, ids_of(text, string), stops)
    found = [(string.find(stop) + len(stop), string.find(stop)) for stop in stops if stop in string]
    assert "".join(pieces) == (string[: min(found)[1]] if found else string)
    assert stopped == bool(found)


@NO_FIXTURE_WARNING
@given(string=STRINGS, stops=st.lists(st.text(st.sampled_from("ab é🙂"), min_size=1, max_size=4), max_size=3),
       least=st.integers(0, 12))  # fmt: skip
def test_a_stop_string_that_the_first_tokens_complete_does_not_count(
    text: Text, string: str, stops: list[str], least: int
) -> None:
    string = string.replace("\ufffd", "") + "ab é🙂ab"
    ids = ids_of(text, string)
    decoder = text.decoder(stops, least)
    safe = len(text.tokenizer.decode(ids[:least]).rstrip("\ufffd"))
    made = "".join(decoder.add(id) for id in ids) + decoder.end()
    found = [(at + len(stop), at) for stop in stops if (at := string.find(stop, max(0, safe + 1 - len(stop)))) >= 0]
    counts = bool(found) and len(ids) > least
    assert (made, decoder.stopped) == (string[: min(found)[1]] if counts else string, counts)


def test_a_character_of_several_tokens_comes_in_one_piece(text: Text) -> None:
    ids = ids_of(text, "👩‍👩‍👧中")
    assert len(ids) > 4
    assert [piece for piece in pieces_of(text, ids, [])[0] if piece] == ["👩", "\u200d", "👩", "\u200d", "👧", "中"]


def test_a_character_cut_by_the_token_limit_is_shown_as_such(text: Text) -> None:
    ids = ids_of(text, "ab👧")
    assert "".join(pieces_of(text, ids[:-1], [])[0]) == "ab\ufffd"


def test_the_beginning_of_a_stop_string_is_held_back_until_it_is_decided(text: Text) -> None:
    decoder = text.decoder(["plus minus"])
    given = ""
    for id in ids_of(text, "2 plus "):
        given += decoder.add(id)
    assert given == "2 "
    assert given + decoder.add(ids_of(text, "3")[0]) + decoder.end() == "2 plus 3"


def test_special_tokens_of_the_answer_are_not_shown(text: Text) -> None:
    assert "".join(pieces_of(text, [*ids_of(text, "yes"), 0, *ids_of(text, "no")], [])[0]) == "yesno"


def test_a_question_goes_through_the_chat_template(text: Text) -> None:
    ids = text.prompt_ids([{"role": "user", "content": "What is DNS?"}])
    assert text.tokenizer.decode(ids) == "Question:\nWhat is DNS?\n\nAnswer:\n"


def test_the_text_of_a_special_token_in_a_question_is_only_text(text: Text) -> None:
    ids = text.prompt_ids(
        [
            {"role": "user", "content": "What is <|endoftext|>?"},
            {"role": "assistant", "content": "An end."},
            {"role": "user", "content": "What is <|endoftext|>?"},
        ]
    )
    assert ids.count(0) == 1, "the template's own, after the answer, and no other"
    assert text.tokenizer.decode(ids).count("What is <|endoftext|>?") == 2


QUESTIONS_ONLY = "{% for m in messages if m.role == 'user' %}Q: {{ m.content }}\n{% endfor %}A:"
TWICE = "{% for m in messages %}{{ m.content }} {{ m.content }}{% endfor %}"
BACKWARDS = "{% for m in messages|reverse %}{{ m.content }}\n{% endfor %}"
UPPER = "{% for m in messages %}{{ m.content|upper }}\n{% endfor %}"
SHORT = "{% for m in messages %}{{ m.content[:9] }}\n{% endfor %}"
STRIPPED = "{% for m in messages %}[{{ m.content|trim }}]{% endfor %}"
KEPT = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
MERGED = "[INST] <<SYS>>{{ messages[0].content }}<</SYS>> {{ messages[1].content }} [/INST]"
THOUGHTS = "{% for m in messages %}{{ m.content.split('</think>')[-1] }}\n{% endfor %}"
LINES_SHOWN = (
    "{% for m in messages %}[{{ m.content if m.role == 'system' else m.content.replace('\n\n', ' | ') }}]{% endfor %}"
)
END = "<|endoftext|>"


@pytest.mark.parametrize(
    ("template", "expected"),
    [(QUESTIONS_ONLY, f"Q: What is {END}?\nA:"), (TWICE, f"No {END} No {END}What is {END}? What is {END}?"),
     (BACKWARDS, f"What is {END}?\nNo {END}\n"), (UPPER, f"NO {END.upper()}\nWHAT IS {END.upper()}?\n"),
     (SHORT, f"No {END[:6]}\nWhat is <\n")],
)  # fmt: skip
def test_a_template_may_drop_move_and_change_a_message_with_a_token_in_it(
    published: Path, template: str, expected: str
) -> None:
    text = Text(published)
    text.tokenizer.chat_template = template
    ids = text.prompt_ids([{"role": "system", "content": f"No {END}"}, {"role": "user", "content": f"What is {END}?"}])
    assert text.tokenizer.decode(ids) == expected
    assert 0 not in ids


@pytest.mark.parametrize(
    ("template", "expected"),
    [(STRIPPED, f"[No {END}][What is {END}?]"), (KEPT, f"[ No {END}\n][What is {END}?]"),
     (MERGED, f"[INST] <<SYS>> No {END}\n<</SYS>> What is {END}? [/INST]")],
)  # fmt: skip
def test_blanks_around_a_message_with_a_token_in_it_are_the_templates_to_keep_or_to_drop(
    published: Path, template: str, expected: str
) -> None:
    text = Text(published)
    text.tokenizer.chat_template = template
    ids = text.prompt_ids(
        [{"role": "system", "content": f" No {END}\n"}, {"role": "user", "content": f"What is {END}?"}]
    )
    assert text.tokenizer.decode(ids) == expected
    assert 0 not in ids


def test_the_template_removes_reasoning_from_the_history(published: Path, tmp_path: Path) -> None:
    tokenizer = Text(published).tokenizer
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = THOUGHTS
    tokenizer.save_pretrained(tmp_path)
    text = Text(tmp_path)
    said = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "<think>secret</think>yes"}]
    assert text.tokenizer.decode(text.prompt_ids(said)) == "x\nyes\n"


def test_an_added_token_that_is_not_special_is_text_like_any_other(published: Path, tmp_path: Path) -> None:
    tokenizer = Text(published).tokenizer
    tokenizer.add_tokens(["\n\n", "</think>"])
    tokenizer.chat_template = LINES_SHOWN
    tokenizer.save_pretrained(tmp_path)
    text = Text(tmp_path)
    turns = [{"role": "system", "content": "\n\n"}, {"role": "user", "content": "a\n\nb </think>"}]
    assert text.prompt_ids(turns) == text.tokenizer.apply_chat_template(turns, return_dict=False)
    assert text.tokenizer.decode(text.prompt_ids(turns)) == "[\n\n][a | b </think>]"


def test_threads_share_it(text: Text) -> None:
    """A special token in a question stays text and the template's stays one, whatever others ask at the same time."""
    plain = [
        {"role": "user", "content": "How? " * 5},
        {"role": "assistant", "content": "So."},
        {"role": "user", "content": "Why?"},
    ]
    literal = [{"role": "user", "content": f"What is {END}? " * 200}]
    expected = [text.prompt_ids(plain), text.prompt_ids(literal)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(text.prompt_ids, [plain, literal] * 150))
    assert found == expected * 150


@pytest.mark.parametrize("said", ["", END])
def test_tokenizing_a_long_prompt_does_not_block_others(text: Text, said: str) -> None:
    """Some thousand of them; a dozen where the tokenizer keeps them out."""
    words = "How many players are in a team? " * 30_000
    turns = 0

    async def count() -> None:
        nonlocal turns
        making = asyncio.create_task(
            asyncio.to_thread(text.prompt_ids, [{"role": "user", "content": words + said + words}])
        )
        while not making.done():
            turns += 1
            await asyncio.sleep(0.0005)
        assert len(await making) > 60_000

    asyncio.run(count())
    assert turns > 100


def test_a_template_that_refuses_says_why(text: Text) -> None:
    text.tokenizer.chat_template = "{{ raise_exception('only one question at a time') }}"
    with pytest.raises(ValueError, match="only one question at a time"):
        text.prompt_ids([{"role": "user", "content": "x"}])
