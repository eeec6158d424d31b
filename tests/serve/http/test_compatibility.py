"""A tokenizer that is broken or another model's, and a template that takes no question: refused at the start, once."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkout import ROOT
from served import Served
from tokenizers import AddedToken, ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from serve.http import compatibility
from serve.repository import eos_ids


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "model"))


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def template(folder: Path, text: str) -> None:
    (folder / "chat_template.jinja").write_text(text)


def another(folder: Path, size: int, *special: str) -> None:
    """The tokenizer.json of another model."""
    bpe = ByteLevelBPETokenizer()
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py")]
    bpe.train_from_iterator(texts, vocab_size=size, special_tokens=list(special), show_progress=False)
    bpe._tokenizer.save(str(folder / "tokenizer.json"))


def cut_in_half(folder: Path) -> None:
    whole = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(whole[: len(whole) // 2])


def no_object(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("[]")


def cut_config(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"eos_')


def needs_sentencepiece(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02")
    edit(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizer")


def syntax_error(folder: Path) -> None:
    template(folder, "{% for message in messages %}{{ message['content'] }")


def type_error(folder: Path) -> None:
    template(folder, "{{ messages[0]['content'] + 1 }}")


def wants_a_system_message(folder: Path) -> None:
    template(folder, "{% if messages[0]['role'] != 'system' %}{{ raise_exception('no system message') }}{% endif %}x")


def leaves_the_question_out(folder: Path) -> None:
    template(folder, "Question:\n\nAnswer:\n")


def writes_nothing(folder: Path) -> None:
    template(folder, "")


def of_another_model(folder: Path) -> None:
    another(folder, 300, "<s>", "</s>")


def without_the_end(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=[399 + 1, 5000])


def larger(folder: Path) -> None:
    another(folder, 700, "<|endoftext|>")


def no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


FAULTS: list[tuple[Callable[[Path], None], str]] = [
    (cut_in_half, "its tokenizer cannot be loaded (Expecting value: line"),
    (no_object, "its tokenizer cannot be loaded ("),
    (cut_config, "its tokenizer cannot be loaded (Unterminated string"),
    (needs_sentencepiece, "its tokenizer cannot be loaded without a tokenizer.json; publish"),
    (syntax_error, "its chat template does not accept a question (unexpected '}'); publish"),
    (type_error, "its chat template does not accept a question (it fails with TypeError: can only concatenate"),
    (wants_a_system_message, "its chat template does not accept a question (no system message); publish"),
    (leaves_the_question_out, "its chat template leaves the question out; publish"),
    (writes_nothing, "its chat template does not accept a question (its output is empty); publish"),
    (of_another_model, "tokenizer.json lacks <|endoftext|>, which tokenizer_config.json names"),
    (without_the_end, "its answers end with the token id 400, 5000, which its tokenizer does not have; publish"),
]


@pytest.mark.parametrize(("fault", "says"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_tokenizer_that_cannot_encode_a_question_is_refused(
    fault: Callable[[Path], None], says: str, folder: Path
) -> None:
    compatibility.load(folder, eos_ids(folder))
    fault(folder)
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        compatibility.load(folder, eos_ids(folder))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) <= 200, "the log cuts more off"


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(folder: Path) -> None:
    compatibility.check_ids(compatibility.load(folder, [0]), 400)
    larger(folder)
    with pytest.raises(ValueError, match=r"has the token id 699 \(.*\), and the model knows those below 400; publish"):
        compatibility.check_ids(compatibility.load(folder, [0]), 400)


def test_a_special_token_above_the_models_ids_does_no_harm_where_no_prompt_has_it(folder: Path) -> None:
    """As Gemma 3's image token, and padding tokens that were added afterwards."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": AddedToken("<pad>", special=True)})
    tokenizer.save_pretrained(folder)
    known = tokenizer.pad_token_id
    compatibility.check_ids(compatibility.load(folder, [0]), known)
    template(folder, "<pad>{{ messages[0]['content'] }}")
    with pytest.raises(ValueError, match=r"has the token id [0-9]+ ..<pad>"):
        compatibility.check_ids(compatibility.load(folder, [0]), known)


@pytest.mark.parametrize(
    "fault", [no_template, cut_in_half, needs_sentencepiece, syntax_error, of_another_model, larger],
    ids=lambda fault: fault.__name__,
)  # fmt: skip
def test_the_server_ends_with_2_and_says_why_once(fault: Callable[[Path], None], folder: Path) -> None:
    fault(folder)
    server = Served(folder)
    server.start()
    try:
        assert server.process.wait(60) == 2
    finally:
        server.stop()
    said = server.output()
    assert said.count("cannot be served") == 1, said
    assert "Traceback" not in said
    assert "restarting" not in said
    assert "SentencePiece" not in said
    assert "exiting" not in said, "the reason is the last word"
