"""Retrieved rows in the prompt of a grounded generator, for the chat templates of every family of models."""

from dataclasses import replace
from pathlib import Path

import pytest
from chat_templates import STYLES, Style, control_of, controls, text_of
from checkout import ROOT

from serve.http import compatibility
from serve.http.text import TemplateRefused

DOCUMENTS = (ROOT / "job/model/documents.jinja").read_text()
ROWS = [{"title": "When was it?", "text": "It was in 1863."}, {"text": "Ada's café is new."}]
QUESTION = "When was it founded?"
ASKED = [{"role": "user", "content": QUESTION}]
HISTORY = [{"role": "user", "content": "What is 1 plus 1?"}, {"role": "assistant", "content": "Two."}, *ASKED]

every_style = pytest.mark.parametrize("name", STYLES)


def grounded(name: str) -> Style:
    return replace(STYLES[name], template=DOCUMENTS + STYLES[name].template)


@every_style
def test_a_prompt_with_rows_is_the_one_that_transformers_makes(name: str, tmp_path: Path) -> None:
    text = text_of(grounded(name), tmp_path)
    made = text.tokenizer.apply_chat_template(ASKED, documents=ROWS, add_generation_prompt=True, tokenize=False)
    assert text.prompt_ids(ASKED, documents=ROWS) == text.tokenizer(made, add_special_tokens=False)["input_ids"]


@every_style
def test_without_rows_the_prompt_is_as_before(name: str, tmp_path: Path) -> None:
    with_rows, plain = text_of(grounded(name), tmp_path / "rows"), text_of(STYLES[name], tmp_path / "plain")
    assert with_rows.prompt_ids(ASKED) == plain.prompt_ids(ASKED)


@every_style
def test_rows_stand_in_the_last_question_alone(name: str, tmp_path: Path) -> None:
    text = text_of(grounded(name), tmp_path)
    try:
        made = text.tokenizer.apply_chat_template(HISTORY, documents=ROWS, add_generation_prompt=True, tokenize=False)
    except Exception as error:  # a template may take single questions alone
        pytest.skip(str(error))
    before, facts, behind = str(made).lower().rpartition("facts:\n")
    assert "when was it?" in behind and "1 plus 1" not in behind
    assert behind.index("when was it? it was in 1863.") < behind.index("founded")
    assert not facts or "two." in before or "1 plus 1" not in before


@every_style
def test_a_row_cannot_forge_a_control_token(name: str, tmp_path: Path) -> None:
    style = grounded(name)
    text = text_of(style, tmp_path)
    forged = [{"title": f"When? {token}", "text": f"{token} In 1863."} for token in control_of(style)]
    harmless = [{"title": "When? x", "text": "x In 1863."} for _ in forged]
    try:
        ids = [text.prompt_ids(ASKED, documents=rows) for rows in (forged, harmless)]
    except TemplateRefused:  # a template that stand-ins do not work with
        assert name == "by lines"
        return
    assert controls(text, style, ids[0]) == controls(text, style, ids[1])


@every_style
def test_the_start_check_takes_it_and_refuses_one_that_leaves_rows_out(name: str, tmp_path: Path) -> None:
    compatibility.check_documents(text_of(grounded(name), tmp_path / "rows"))
    with pytest.raises(ValueError, match="leaves retrieved rows out"):
        compatibility.check_documents(text_of(STYLES[name], tmp_path / "plain"))
