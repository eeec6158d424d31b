"""Template: the chat template that training, evaluation and every server apply to a question.

It gives Kickoff's template to a tokenizer that has none, and makes sure that a base's own template does what the
contract needs: the prompt holds the whole question, the answer follows the prompt, and a question gives the same
prompt every day. For a grounded model it puts `documents.jinja` in front, which writes retrieved rows into the last
question. It knows tokenizers and Jinja. It does not know models.
"""

import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from job.config.schema import ModelSection
from job.errors import ConfigError
from job.run.messages import one_line

KICKOFF = Path(__file__).with_name("chat_template.jinja")
DOCUMENTS = Path(__file__).with_name("documents.jinja")
QUESTION = 'Where is Ada\'s café in 1863?\n  - 漢字, one line; <b>two</b> & 50% "three"'
"""Capitals, accents, an indented line and characters that HTML, JSON and shells escape: all must be in the prompt."""
ANSWER = "Kickoff's answer: 42."
ROWS = [{"title": "When?", "text": "In 1863, in London."}, {"text": "Ada's café is <b>new</b>."}]
"""Retrieved rows, one of them without a question."""
_OURS_INSTEAD = "set model.chat_template=kickoff to use Kickoff's template instead"
_OPEN_THOUGHT = re.compile(r"[<\[◁](?:think|thinking|thought|reasoning)[>\]▷]\s*$", re.IGNORECASE)
"""Matches at the end of a prompt only; instructions that name the tag do not open a thought."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Template:
    """The chat template that a tokenizer was given."""

    whose: str
    """"Kickoff's" or "the base model's own"."""
    date: str | None
    """The date that was written into it; None if it does not ask for the date."""


def install(section: ModelSection, tokenizer: PreTrainedTokenizerBase) -> Template:
    """Give the tokenizer the template that the published model will have.

    Args:
        section: The config's model section.
        tokenizer: The base's tokenizer; its chat template is set.

    Returns:
        Whose template it is, and its date.

    Raises:
        ConfigError: The base's own template cannot be used, or its tokenizer cannot encode Kickoff's.
    """
    chosen = _install(section, tokenizer)
    if section.ground is not None:
        _add_documents(section.base, tokenizer)
    return chosen


def _install(section: ModelSection, tokenizer: PreTrainedTokenizerBase) -> Template:
    own = None if section.chat_template == "kickoff" else _own_template(section.base, tokenizer)
    if own is None:
        opening = _opening(section.base, tokenizer)
        tokenizer.chat_template = _opening_in_jinja(tokenizer, opening) + KICKOFF.read_text()
        _require_encodable(section.base, tokenizer, opening)
        return Template("Kickoff's", date=None)
    tokenizer.chat_template = own
    prompt = _require_usable(section.base, tokenizer)
    date = _fix_date(section.base, tokenizer, own) if _uses_clock(own) else None
    _warn_about_unknown(section.base, tokenizer, prompt)
    # a base that an earlier run published has Kickoff's
    whose = "Kickoff's" if own.strip().endswith(KICKOFF.read_text().strip()) else "the base model's own"
    return Template(whose, date)


def _add_documents(base: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the template write retrieved rows into the last question; without `documents` it renders as before."""
    before, own = _render(base, tokenizer, QUESTION), str(tokenizer.chat_template)
    if not own.startswith(DOCUMENTS.read_text()):  # that of a base that an earlier run published
        tokenizer.chat_template = DOCUMENTS.read_text() + own
    chat = [{"role": "user", "content": QUESTION}]
    prompt = str(tokenizer.apply_chat_template(chat, documents=ROWS, tokenize=False, add_generation_prompt=True))
    texts = [QUESTION, *(text for row in ROWS for text in row.values())]
    lost = next((text for text in texts if prompt.count(text) != 1), None)
    if lost is not None or _render(base, tokenizer, QUESTION) != before:
        raise ConfigError(
            f"model.ground: the chat template of {base} does not take retrieved rows: expected a prompt with {lost!r} "
            f"once, found {prompt[-200:]!r}; {_OURS_INSTEAD}"
        )


def render_samples(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Render a question, an answered question and a conversation, as far as the template accepts them."""
    question, answer = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}
    system = {"role": "system", "content": "Be brief."}
    texts = []
    for chat in ([question], [question, answer], [system, question, answer, question]):
        with suppress(Exception):  # a template is a program and may fail; `install` has checked the first one
            texts.append(str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)))
    return texts


def _own_template(base: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        if "default" not in template:
            raise ConfigError(
                f"model.base: {base} has several chat templates and none named default: "
                f"{', '.join(sorted(template))}; save it with the right one, or {_OURS_INSTEAD}"
            )
        template = template["default"]
    return str(template) if template else None


def _opening(base: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that the tokenizer puts before every text by itself (BOS, for Llama and Gemma).

    The model has never seen a text without them. After applying a template, neither transformers nor vLLM adds special
    tokens; a tool that does so would write them twice, with this template as with Llama's own.
    """
    text = "x"
    plain: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    special: list[int] = tokenizer(text)["input_ids"]
    starts = [start for start in range(len(special)) if special[start : start + len(plain)] == plain]
    if not plain or not starts:
        raise ConfigError(
            f"model.base: the tokenizer of {base} reads {text!r} as {plain} and, with its special tokens, as "
            f"{special}, which does not contain it; use another base"
        )
    return special[: starts[0]]


def _opening_in_jinja(tokenizer: PreTrainedTokenizerBase, opening: list[int]) -> str:
    if not opening:
        return ""
    if opening == [tokenizer.bos_token_id]:
        return "{{- bos_token -}}\n"
    return "{{- " + repr("".join(tokenizer.convert_ids_to_tokens(opening))) + " -}}\n"


def _require_encodable(base: str, tokenizer: PreTrainedTokenizerBase, opening: list[int]) -> None:
    """Raise ConfigError if the tokenizer loses words of Kickoff's template, or does not read the opening as its ids."""
    prompt = _render(base, tokenizer, QUESTION)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if ids[: len(opening)] != opening:
        raise ConfigError(
            f"model.base: the tokenizer of {base} starts each text with the ids {opening}, which it does not read from "
            f"their own text, {prompt[:20]!r}; use another base"
        )
    before, _, after = prompt.partition(QUESTION)
    for part in (before, after):
        decoded = str(tokenizer.decode(tokenizer(part, add_special_tokens=False)["input_ids"]))
        if _letters(decoded) != _letters(part) or _has_unknown(tokenizer, part):
            raise ConfigError(
                f"model.base: the tokenizer of {base} cannot write {part.strip()!r}, which Kickoff's chat template "
                f"holds: it turns it into {decoded!r}; use a base with a chat template of its own, or another"
            )


def _require_usable(base: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the prompt of a question in the base's own template, or raise ConfigError if no answer can follow it."""
    prompts = {_render(base, tokenizer, QUESTION) for _ in range(8)}
    prompt = prompts.pop()
    if prompts and not _uses_clock(tokenizer.chat_template):
        raise ConfigError(
            f"model.base: the chat template of {base} renders a different prompt each time, so training and serving "
            f"would differ; {_OURS_INSTEAD}"
        )
    if QUESTION not in prompt:
        raise ConfigError(
            f"model.base: the chat template of {base} drops or changes the question: from {QUESTION!r} it made "
            f"{prompt[-120:]!r}; {_OURS_INSTEAD}"
        )
    if _OPEN_THOUGHT.search(prompt.rpartition(QUESTION)[2]):
        raise ConfigError(
            f"model.base: the chat template of {base} ends its prompt inside a reasoning block "
            f"({prompt[-20:]!r}), which rows of questions and answers do not have; {_OURS_INSTEAD}"
        )
    _compare_with_answered(base, tokenizer, prompt)
    return prompt


def _compare_with_answered(base: str, tokenizer: PreTrainedTokenizerBase, prompt: str) -> None:
    try:
        full = _render(base, tokenizer, QUESTION, ANSWER)
    except ConfigError as error:
        log.warning(f"base: {error}; only single questions can be asked")
        return
    if full.startswith(prompt):
        return
    if QUESTION not in full:
        log.warning("base: its chat template drops a question that has an answer; only single questions can be asked")
        return
    behind, answered = (text.rpartition(QUESTION)[2] for text in (prompt, full))
    if not answered.startswith(behind) and prompt == _render(base, tokenizer, QUESTION, opened=False):
        raise ConfigError(
            f"model.base: the chat template of {base} does not show where an answer begins: add_generation_prompt "
            f"changes nothing, and an answered question is rendered differently; {_OURS_INSTEAD}"
        )
    log.warning(
        "base: its chat template renders an answered question differently from one to answer; single questions are "
        "served as they are trained, longer conversations are not"
    )


def _uses_clock(template: str) -> bool:
    """Return whether the template calls `strftime_now`, the only clock, and does not define it (a fixed date)."""
    return "strftime_now" in template and "macro strftime_now(" not in template


def _fix_date(base: str, tokenizer: PreTrainedTokenizerBase, own: str) -> str:
    """Fix today's date in the template, so that training, evaluation and serving use the same prompt on every day."""
    for _ in range(3):  # the time may change between the two renderings
        before = _render(base, tokenizer, QUESTION)
        now = datetime.now()
        tokenizer.chat_template = _fixed_clock(own, now) + own
        fixed = _render(base, tokenizer, QUESTION)
        tokenizer.chat_template, today = own, now.date().isoformat()
        if fixed == before:
            tokenizer.chat_template = _fixed_clock(own, now) + own
            log.info(f"base: its chat template renders the current date; fixed to {today}")
            return today
    raise ConfigError(
        f"model.base: the chat template of {base} depends on the time in a way that cannot be fixed; {_OURS_INSTEAD}"
    )


def _fixed_clock(template: str, now: datetime) -> str:
    """Return a macro that replaces `strftime_now`, for all directives (%d, %B) in the template."""
    directives = sorted(set(re.findall(r"(?<!\{)%[-_#]?[A-Za-z]", template)), key=len, reverse=True)
    values = [(directive, now.strftime(directive)) for directive in directives]
    pairs = [(directive, value) for directive, value in values if value != directive]
    return (
        "{%- macro strftime_now(format) -%}\n"
        "{%- set text = namespace(now=format) -%}\n"
        f"{{%- for directive, value in {pairs!r} -%}}\n"
        "{%- set text.now = text.now.replace(directive, value) -%}\n"
        "{%- endfor -%}\n"
        "{{- text.now -}}\n"
        "{%- endmacro %}\n"  # one line break after a block is not part of the text
    )


def _render(
    base: str, tokenizer: PreTrainedTokenizerBase, question: str, answer: str | None = None, opened: bool = True
) -> str:
    chat = [{"role": "user", "content": question}]
    if answer is not None:
        chat.append({"role": "assistant", "content": answer})
    try:
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=opened and answer is None))
    except Exception as error:  # a template is a program, and may fail in every way
        what = "a single question" if answer is None else "an answered question"
        raise ConfigError(
            f"model.base: the chat template of {base} does not accept {what}: {one_line(error)}; {_OURS_INSTEAD}"
        ) from None


def _warn_about_unknown(base: str, tokenizer: PreTrainedTokenizerBase, prompt: str) -> None:
    before, _, after = prompt.partition(QUESTION)
    if _has_unknown(tokenizer, before) or _has_unknown(tokenizer, after):
        log.warning(f"base: the tokenizer of {base} cannot encode all of its own chat template's text")


def _has_unknown(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    """Return whether the text becomes the unknown token (which in GPT-2 is also the end-of-sequence token)."""
    unknown = tokenizer.unk_token_id
    if unknown is None or str(tokenizer.unk_token) in text:
        return False
    return unknown in tokenizer(text, add_special_tokens=False)["input_ids"]


def _letters(text: str) -> str:
    return "".join(text.split()).casefold()
