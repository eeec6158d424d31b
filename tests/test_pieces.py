"""Ids to text for every family of tokenizers: the pieces joined are the text of all ids, whatever the ids are."""

import pytest
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
