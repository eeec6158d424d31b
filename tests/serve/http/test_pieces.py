"""Ids to text for every family of tokenizers: the pieces joined are the text of all ids, whatever the ids are."""

from pathlib import Path
from typing import Any

import pytest
from chat_templates import STYLES, text_of
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel

from serve.http.pieces import Pieces, special_ids
from serve.http.text import Decoder

END = "</s>"
WORDS = ["a", "b", "n't", ".", " do", "é", "中", "\ufffd", " "]
EXAMPLES = settings(max_examples=300, deadline=None)


def tokenizer_of(words: list[str], decoder: decoders.Decoder) -> Tokenizer:
    vocabulary = {word: id for id, word in enumerate(dict.fromkeys([END, "<unk>", *words]))}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="<unk>"))
    tokenizer.add_special_tokens([END])
    tokenizer.add_tokens(["<think>"])
    tokenizer.decoder = decoder
    return tokenizer


BYTES = [f"<0x{byte:02X}>" for byte in (0x20, 0x61, 0xE4, 0xBD, 0xA0, 0xF0, 0x9F, 0x99, 0x82, 0xFF)]
PIECES = [word.replace(" ", "▁") for word in WORDS] + ["▁a", "▁▁", "a▁"]
LLAMA_DECODER = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
TOKENIZERS = {
    "byte-level": tokenizer_of([*ByteLevel.alphabet(), "Ġa", "ä½", "ðŁ"], decoders.ByteLevel()),
    "byte-fallback, Llama 2": tokenizer_of(
        [*BYTES, *PIECES], decoders.Sequence([*LLAMA_DECODER, decoders.Strip(" ", 1, 0)])
    ),
    "byte-fallback, Gemma": tokenizer_of([*BYTES, *PIECES], decoders.Sequence([*LLAMA_DECODER])),
    "byte-fallback, metaspace": tokenizer_of(
        [*BYTES, *PIECES], decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    ),
    "metaspace": tokenizer_of(PIECES, decoders.Metaspace()),
    "metaspace, nothing before": tokenizer_of(PIECES, decoders.Metaspace(prepend_scheme="never")),
    "WordPiece": tokenizer_of([*WORDS, *(f"##{word}" for word in WORDS)], decoders.WordPiece()),
    "end of word": tokenizer_of([*WORDS, *(f"{word}</w>" for word in WORDS)], decoders.BPEDecoder()),
    "no decoder": tokenizer_of(WORDS, decoders.Sequence([])),
}


def ids_of(tokenizer: Tokenizer, tokens: list[str]) -> list[int]:
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[token] for token in tokens]


def pieces_of(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    pieces = Pieces(tokenizer, special_ids(tokenizer))
    return [*(pieces.add(id) for id in ids), pieces.end()]


@pytest.mark.parametrize("family", TOKENIZERS)
@EXAMPLES
@given(data=st.data())
def test_the_pieces_joined_are_the_text_of_all_ids(family: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[family]
    # a few ids above the vocabulary: a model may have more rows than its tokenizer has words
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() + 2), max_size=30))
    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("family", TOKENIZERS)
@EXAMPLES
@given(data=st.data())
def test_long_answers_that_repeat_themselves_are_whole(family: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[family]
    some = st.lists(st.integers(0, tokenizer.get_vocab_size() - 1), max_size=6)
    ids = [id for loop in data.draw(st.lists(some, max_size=5)) for id in loop * data.draw(st.integers(1, 12))]
    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


PLAIN = {"a", "b", ".", " do", "é", " ", "Ġ", "Ġa", "▁a", "▁▁", "a▁", "▁do", "▁", "##a", "##b", "a</w>", "b</w>"}


@pytest.mark.parametrize("family", TOKENIZERS)
@EXAMPLES
@given(data=st.data())
def test_pieces_after_a_text_are_what_they_add_to_it(family: str, data: st.DataObject) -> None:
    tokenizer = TOKENIZERS[family]
    plain = [id for token, id in sorted(tokenizer.get_vocab().items()) if token in PLAIN]
    before = data.draw(st.lists(st.sampled_from(plain), min_size=1, max_size=30))
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() + 2), max_size=30))
    pieces = Pieces(tokenizer, special_ids(tokenizer), before)
    made = "".join(map(pieces.add, ids)) + pieces.end()
    whole = tokenizer.decode([*before, *ids], skip_special_tokens=True)
    assert made == whole[len(tokenizer.decode(before, skip_special_tokens=True)) :]


@pytest.mark.parametrize("family", [family for family in TOKENIZERS if "byte-fallback" in family])
def test_bad_bytes_do_not_spoil_the_text_before(family: str) -> None:
    tokenizer = TOKENIZERS[family]
    smile = ids_of(tokenizer, ["<0xF0>", "<0x9F>", "<0x99>", "<0x82>"])
    pieces = Pieces(tokenizer, special_ids(tokenizer), [*ids_of(tokenizer, ["a"]), *smile])
    assert "".join(map(pieces.add, [*smile, *ids_of(tokenizer, ["b"])])) == "🙂b"
    pieces = Pieces(tokenizer, special_ids(tokenizer), [*ids_of(tokenizer, ["a"]), *smile])
    assert "".join(map(pieces.add, [*smile, *ids_of(tokenizer, ["<0xFF>"])])) == "\ufffd" * 5


@pytest.mark.parametrize("name", ["llama 2", "mistral v1", "mistral v3", "phi 3, in pieces", "zephyr", "chatml"])
def test_the_answer_that_continues_a_message_keeps_its_first_blank(tmp_path: Path, name: str) -> None:
    text = text_of(STYLES[name], tmp_path)
    said = "2 plus 2 is"
    chat = [{"role": "user", "content": "What is 2 plus 2?"}, {"role": "assistant", "content": said}]
    prompt = text.prompt_ids(chat, continued=True)
    tokenizer = text.tokenizer.backend_tokenizer
    blank = tokenizer.token_to_id("Ġ" if STYLES[name].kind == "bytes" else "▁")
    decoder = text.decoder([], before=prompt)
    assert "".join(map(decoder.add, [blank, tokenizer.token_to_id("4")])) + decoder.end() == " 4"


class Counted:
    """A tokenizer that counts the ids it decodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self.decoded = tokenizer, 0

    def decode(self, ids: list[int], **options: Any) -> str:
        self.decoded += len(ids)
        return str(self._tokenizer.decode(ids, **options))

    def id_to_token(self, id: int) -> str | None:
        token: str | None = self._tokenizer.id_to_token(id)
        return token


LOOPS = [
    ("byte-level", ["ä", "½"], True),
    ("byte-level", ["ÿ"], True),
    ("byte-level", ["ä", "½", "ł"], True),
    ("byte-fallback, Llama 2", ["<0xFF>"], True),
    ("byte-fallback, Llama 2", ["<0xE4>"], True),
    ("byte-fallback, Llama 2", ["\ufffd"], True),
    ("byte-fallback, Llama 2", ["<0xFF>", "\ufffd"], True),
    ("byte-fallback, metaspace", ["<0xE4>", "<0xBD>", "\ufffd"], True),
    ("byte-fallback, Gemma", ["<0xE4>", "<0xBD>", "<0xA0>"], False),  # a bad byte may come and spoil all of them
    ("metaspace", ["\ufffd"], True),
    ("WordPiece", ["\ufffd", "."], True),
]


@pytest.mark.parametrize(("family", "loop", "streamed"), LOOPS, ids=str)
def test_a_repetitive_answer_costs_linear_time_and_is_streamed(family: str, loop: list[str], streamed: bool) -> None:
    tokenizer = Counted(TOKENIZERS[family])
    ids = ids_of(TOKENIZERS[family], loop) * (3000 // len(loop))
    pieces = Pieces(tokenizer, special_ids(TOKENIZERS[family]))  # type: ignore[arg-type]
    given = [pieces.add(id) for id in ids]
    assert "".join([*given, pieces.end()]) == TOKENIZERS[family].decode(ids)
    assert tokenizer.decoded < 25 * len(ids)
    if streamed:
        assert all(any(given[at : at + 4]) for at in range(4, len(given) - 4))


@pytest.mark.parametrize("family", [family for family in TOKENIZERS if "byte-fallback" in family])
def test_a_byte_that_spoils_a_character_given_before(family: str) -> None:
    tokenizer = TOKENIZERS[family]
    ids = ids_of(tokenizer, ["a", "<0xE4>", "<0xBD>", "<0xA0>", END, "<0xFF>", "b"])
    assert (
        "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True) == "a\ufffd\ufffd"
        "\ufffd\ufffdb"
    )


@pytest.mark.parametrize("family", ["byte-level", "byte-fallback, Llama 2", "metaspace", "WordPiece"])
def test_words_come_as_soon_as_they_are_there(family: str) -> None:
    tokenizer = TOKENIZERS[family]
    ids = ids_of(tokenizer, ["a", "b", "a", "b"])
    assert all(pieces_of(tokenizer, ids)[:4])


@pytest.mark.parametrize("family", TOKENIZERS)
@EXAMPLES
@given(data=st.data(), stop=st.sampled_from(["ab", "a b", "b.", "中", "aé", "\ufffd"]))
def test_an_answer_ends_before_a_stop_string_across_pieces(family: str, data: st.DataObject, stop: str) -> None:
    tokenizer = TOKENIZERS[family]
    ids = data.draw(st.lists(st.integers(0, tokenizer.get_vocab_size() + 2), max_size=30))
    decoder = Decoder(Pieces(tokenizer, special_ids(tokenizer)), [stop])
    given = ""
    for id in ids:
        given += decoder.add(id)
    given += decoder.end()
    whole = tokenizer.decode(ids, skip_special_tokens=True)
    assert given == whole.split(stop)[0]
    assert decoder.stopped == (stop in whole)
