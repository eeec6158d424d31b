"""Clean: repairs the text of rows, and rejects rows that cannot be used, each with a reason.

It knows single rows only; rows that repeat each other are dedupe's work. It holds the steps, each a small function from
text to text, and their order. `rules` holds the reasons to reject a row, `contacts` finds addresses and phone numbers,
and `credentials` finds secrets. A step that is off costs nothing.

Lower-casing, stop word removal and stemming are classic steps for search and classification. A generative model learns
to write what it reads, so it would answer in lower case, without articles and in stems. They are off by default, and
here for comparison.
"""

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import datasets
import ftfy
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from job.config.schema import CleanSection
from job.data import layout
from job.data.clean import contacts, markup, rules
from job.data.credentials import find_secret, redact
from job.data.rows import BATCH, transform
from job.run.row_facts import Rejection, Row

# curly quotes, ligatures and full-width characters stay as written: they are not damage
_REPAIR = ftfy.TextFixerConfig(
    unescape_html=False, uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False, explain=False
)
# everything but blanks, digits and punctuation; combining marks (vowels in Hindi) and joiners belong to the word
_WORD = re.compile(r"[^\s\d!-/:-@\[-`{-~\xab\xbb\u060c\u061b\u061f\u0964\u0965\u2010-\u206f\u3000-\u303f]+")
_WORD_AND_BLANK = re.compile(f"({_WORD.pattern}) ?")
_MAX_ROUNDS = 20
_LEAK_REASON = "the row contains what looks like a secret:"

Step = Callable[[str], str]


def clean(section: CleanSection, rows: datasets.Dataset) -> tuple[datasets.Dataset, list[Rejection]]:
    """Repair the text of every row, and reject rows that break a rule.

    Each row is cleaned alone, so large data sets are cleaned in parallel. Cleaning is idempotent except for
    `remove_html`: escaped code in an answer about HTML becomes HTML when it is decoded, and a second time it would be
    removed.

    Args:
        section: the config's section clean.
        rows: {"question", "answer", "where"}, as load gives them; other columns pass through.

    Returns:
        The rows kept, and the rejected ones. A rejected row that holds a secret carries its text with the secret
        redacted, so that the secret is not copied further.
    """
    schema = rows.features.arrow_schema.remove_metadata().append(pa.field("reason", pa.string()))
    cleaned = transform(rows, partial(_clean_table, section, schema), schema, "clean")
    is_rejected = pc.is_valid(cleaned.with_format("arrow")["reason"][:]).to_numpy(zero_copy_only=False)
    rejected = [_rejection(row) for row in cleaned.select(np.flatnonzero(is_rejected))]
    return cleaned.select(np.flatnonzero(~is_rejected)).remove_columns("reason"), rejected


def _clean_table(section: CleanSection, schema: pa.Schema, table: pa.Table) -> pa.Table:
    """The rows with both texts cleaned, or redacted, and the reason to reject a row, if there is one."""
    texts = zip(table["question"].to_pylist(), table["answer"].to_pylist(), strict=True)
    questions, answers, reasons = zip(
        *(_clean_row(section, raw_question, raw_answer) for raw_question, raw_answer in texts), strict=True
    )
    cleaned = {"question": questions, "answer": answers, "reason": reasons}
    columns = [pa.array(cleaned[name], pa.string()) if name in cleaned else table[name] for name in schema.names]
    return pa.table(columns, schema=schema)


def _clean_row(section: CleanSection, raw_question: str, raw_answer: str) -> tuple[str, str, str | None]:
    question, answer = repair(section, raw_question), repair(section, raw_answer)
    if secret := _first_secret(
        layout.remove_invisible(raw_question), layout.remove_invisible(raw_answer), question or "", answer or ""
    ):
        return _redact(raw_question, question), _redact(raw_answer, answer), f"{_LEAK_REASON} {secret}"
    if question is None or answer is None:
        return raw_question, raw_answer, f"the text still changes after {_MAX_ROUNDS} rounds of cleaning"
    return question, answer, rules.rejection_reason(section, question, answer)


def _rejection(row: dict[str, Any]) -> Rejection:
    shown = (row["question"], row["answer"]) if row["reason"].startswith(_LEAK_REASON) else None
    return Rejection(row["where"], "clean", row["reason"], row.get("id"), shown)


def list_flagged(section: CleanSection, rows: datasets.Dataset) -> list[Row]:
    """List the rows that `clean.offensive: flag` keeps and reports.

    Args:
        section: the config's section clean.
        rows: cleaned rows, all or those that later stages kept.

    Returns:
        The rows with the offensive word; none unless the config asks for them.
    """
    if section.offensive != "flag":
        return []
    reasons = ((rules.find_offensive(section, row["question"], row["answer"]), row) for row in rows)
    return [Row(row["where"], row["question"], row["answer"], reason) for reason, row in reasons if reason]


def notes(section: CleanSection, parts: list[datasets.Dataset]) -> list[str]:
    """Write what a person should know about the rows kept: that they hold HTML which is not removed.

    Args:
        section: the config's section clean.
        parts: the train and test rows.

    Returns:
        Sentences, or none.
    """
    if section.remove_html:
        return []
    count, first = 0, ("", "")
    for part in parts:
        for row in _rows_with_html(part):
            count, first = count + 1, first if count else row
    if not count:
        return []
    where, piece = first
    return [
        f"{count} of {sum(map(len, parts))} rows contain HTML, such as {piece!r} in {where}; "
        "clean.remove_html: true makes it plain text"
    ]


def _rows_with_html(rows: datasets.Dataset) -> Iterator[tuple[str, str]]:
    """The place of each row with HTML, and the first piece of it."""
    columns = rows.select_columns(["where", "question", "answer"]).with_format("arrow")
    for start in range(0, len(rows), BATCH):
        table = columns[start : start + BATCH]
        suspect = [pc.match_substring_regex(table[name], "[<&]") for name in ("question", "answer")]
        for row in table.filter(pc.or_(*suspect)).to_pylist():
            if piece := markup.example(row["question"]) or markup.example(row["answer"]):
                yield row["where"], piece[:60]


def repair(section: CleanSection, text: str) -> str | None:
    """Apply all steps to a text, again and again until nothing changes, since one step may uncover work for another.

    Most texts need one round, and changed ones a second. HTML becomes plain text once, before the rounds: in a second
    round the code that was escaped in it would be taken for markup.

    Args:
        section: the config's section clean.
        text: as loaded.

    Returns:
        The repaired text; None if it still changes after twenty rounds, such as a word whose stem has a stem each time.
    """
    if section.remove_html:
        text = markup.plain_text(layout.remove_invisible(fix_text(text) if section.fix_text else text))
    steps = _steps(section)
    for _ in range(_MAX_ROUNDS):
        before = text
        for step in steps:
            text = step(text)
        if text == before:
            return text
    return None


@cache
def _steps(section: CleanSection) -> tuple[Step, ...]:
    masks = (partial(contacts.mask_all, mask=mask, find=find) for _, mask, find in contacts.finders(section, "mask"))
    return (
        layout.unify_line_breaks,
        *([fix_text] if section.fix_text else ()),
        layout.remove_invisible,
        *masks,
        *([str.lower] if section.lowercase else ()),
        *([stop_word_remover(section.words_language)] if section.remove_stop_words else ()),
        *([stemmer_step(section.words_language)] if section.stem else ()),
        layout.trim,
    )


def fix_text(text: str) -> str:
    """Undo mojibake (`cafÃ©`), remove terminal escapes (the only damage in ASCII), compose characters (Unicode NFC)."""
    return text if text.isascii() and "\x1b" not in text else ftfy.fix_text(text, _REPAIR)


def stop_word_remover(language: str) -> Step:
    """Make the step that removes a language's stop words, by the list of the package stop-words."""
    from stop_words import get_stop_words

    stop_words = frozenset(get_stop_words(language))
    # with the blank after it, otherwise two remain where one was
    return lambda text: _WORD_AND_BLANK.sub(lambda word: "" if word[1].lower() in stop_words else word[0], text)


def stemmer_step(language: str) -> Step:
    """Make the step that cuts words to lower-case stems, by a language's Snowball stemmer."""
    import snowballstemmer

    stem = snowballstemmer.stemmer(language).stemWord
    return lambda text: _WORD.sub(lambda word: stem(word[0].lower()), text)


def _first_secret(*texts: str) -> str | None:
    """The first secret in any of the texts. The raw texts count too, since lower-casing hides a key."""
    return next((kind for text in dict.fromkeys(texts) if (kind := find_secret(text))), None)


def _redact(before: str, after: str | None) -> str:
    """The raw text with its secret redacted; the repaired text if the secret shows only there."""
    shown_text = layout.remove_invisible(before)
    return redact(shown_text if after is None or find_secret(shown_text) else after)
