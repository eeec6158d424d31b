"""Clean: the same rows with their text repaired; what cannot be used is rejected with its reason.

It knows single rows only: rows that repeat each other are dedupe's work. It holds the steps, each a small function
from text to text, and their order; why a row is rejected stands in `rules`, addresses and phone numbers in
`contacts`, keys and tokens in `credentials`. A step that is off costs nothing.

Lower-casing, stop words and stemming are classic steps for search and classification. A generative model learns to
write what it reads, so it would answer in lower case, without articles and in stems; they are off, for those who
want to compare.
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
from job.data.credentials import secret_in, without_secrets
from job.data.rows import BATCH, transformed
from job.run.row_facts import Rejection, Row

# quotes stay curly, ligatures and full-width characters stay as written: they are no damage
_REPAIR = ftfy.TextFixerConfig(
    unescape_html=False, uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False, explain=False
)
# all but blanks, digits and punctuation; letters' marks (Hindi's vowels) and joiners belong to the word
_WORD = re.compile(r"[^\s\d!-/:-@\[-`{-~\xab\xbb\u060c\u061b\u061f\u0964\u0965\u2010-\u206f\u3000-\u303f]+")
_WORD_AND_BLANK = re.compile(f"({_WORD.pattern}) ?")
_ROUNDS = 20
_LEAKING = "the row holds what looks like a secret:"

Step = Callable[[str], str]


def clean(section: CleanSection, rows: datasets.Dataset) -> tuple[datasets.Dataset, list[Rejection]]:
    """Repair the text of every row, and reject what breaks a rule.

    It looks at each row alone, so the parts of a data set are cleaned by processes of their own. Cleaning what was
    cleaned changes nothing, but for `remove_html`, which is for text that is HTML: what was escaped in it, such as the
    code of an answer about HTML, is HTML once it has been decoded, and a second time would be removed.

    Args:
        rows: {"question", "answer", "where"}, as load gives them; other columns pass through.

    Returns:
        The rows kept, and the rejected ones. One that holds a secret carries its text with the secret blotted out, so
        that it is copied no further.
    """
    schema = rows.features.arrow_schema.remove_metadata().append(pa.field("reason", pa.string()))
    judged = transformed(rows, partial(_judge, section, schema), schema, "clean")
    wrong = pc.is_valid(judged.with_format("arrow")["reason"][:]).to_numpy(zero_copy_only=False)
    rejected = [_rejection(row) for row in judged.select(np.flatnonzero(wrong))]
    return judged.select(np.flatnonzero(~wrong)).remove_columns("reason"), rejected


def _judge(section: CleanSection, schema: pa.Schema, table: pa.Table) -> pa.Table:
    """The rows with both texts cleaned, or blotted, and the reason why a row cannot be used, if there is one."""
    texts = zip(table["question"].to_pylist(), table["answer"].to_pylist(), strict=True)
    questions, answers, reasons = zip(*(_judged(section, asked, answered) for asked, answered in texts), strict=True)
    made = {"question": questions, "answer": answers, "reason": reasons}
    columns = [pa.array(made[name], pa.string()) if name in made else table[name] for name in schema.names]
    return pa.table(columns, schema=schema)


def _judged(section: CleanSection, asked: str, answered: str) -> tuple[str, str, str | None]:
    question, answer = repaired(section, asked), repaired(section, answered)
    if secret := _secret(layout.visible(asked), layout.visible(answered), question or "", answer or ""):
        return _blotted(asked, question), _blotted(answered, answer), f"{_LEAKING} {secret}"
    if question is None or answer is None:
        return asked, answered, f"the text still changes after {_ROUNDS} rounds of cleaning"
    return question, answer, rules.broken(section, question, answer)


def _rejection(row: dict[str, Any]) -> Rejection:
    shown = (row["question"], row["answer"]) if row["reason"].startswith(_LEAKING) else None
    return Rejection(row["where"], "clean", row["reason"], row.get("id"), shown)


def flagged(section: CleanSection, rows: datasets.Dataset) -> list[Row]:
    """The rows that `clean.offensive: flag` keeps and wants shown.

    Args:
        rows: cleaned rows, all or those that the later stages left.
    """
    if section.offensive != "flag":
        return []
    found = ((rules.offensive(section, row["question"], row["answer"]), row) for row in rows)
    return [Row(row["where"], row["question"], row["answer"], reason) for reason, row in found if reason]


def notes(section: CleanSection, parts: list[datasets.Dataset]) -> list[str]:
    """What a person should know of the rows kept, in sentences: that they hold HTML, where it is not removed."""
    if section.remove_html:
        return []
    count, first = 0, ("", "")
    for part in parts:
        for found in _rows_with_html(part):
            count, first = count + 1, first if count else found
    if not count:
        return []
    where, piece = first
    return [
        f"{count} of {sum(map(len, parts))} rows hold HTML, such as {piece!r} in {where}; "
        "clean.remove_html: true makes it plain text"
    ]


def _rows_with_html(rows: datasets.Dataset) -> Iterator[tuple[str, str]]:
    """Where each row with HTML stands, and the first piece of it."""
    columns = rows.select_columns(["where", "question", "answer"]).with_format("arrow")
    for start in range(0, len(rows), BATCH):
        table = columns[start : start + BATCH]
        suspect = [pc.match_substring_regex(table[name], "[<&]") for name in ("question", "answer")]
        for row in table.filter(pc.or_(*suspect)).to_pylist():
            if piece := markup.example(row["question"]) or markup.example(row["answer"]):
                yield row["where"], piece[:60]


def repaired(section: CleanSection, text: str) -> str | None:
    """The text after all steps, repeated until nothing changes: one may uncover work for another.

    Most texts need one round, those that were changed need a second. None if it never settles, as a word with so many
    endings that its stem has a stem more than twenty times. HTML is made plain text once, before: in the next round the
    code that was escaped in it would be taken for markup.
    """
    if section.remove_html:
        text = markup.plain(layout.visible(fix_text(text) if section.fix_text else text))
    steps = _steps(section)
    for _ in range(_ROUNDS):
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
        layout.line_breaks,
        *([fix_text] if section.fix_text else ()),
        layout.visible,
        *masks,
        *([str.lower] if section.lowercase else ()),
        *([without_stop_words(section.words_language)] if section.remove_stop_words else ()),
        *([stemmed(section.words_language)] if section.stem else ()),
        layout.tidied,
    )


def fix_text(text: str) -> str:
    """Undo mojibake (`cafÃ©`), drop terminal escapes (all that ASCII can hold of these), compose characters (NFC)."""
    return text if text.isascii() and "\x1b" not in text else ftfy.fix_text(text, _REPAIR)


def without_stop_words(language: str) -> Step:
    from stop_words import get_stop_words

    stop_words = frozenset(get_stop_words(language))
    # with the blank behind it, or two would be left where one was
    return lambda text: _WORD_AND_BLANK.sub(lambda word: "" if word[1].lower() in stop_words else word[0], text)


def stemmed(language: str) -> Step:
    import snowballstemmer

    stem = snowballstemmer.stemmer(language).stemWord
    return lambda text: _WORD.sub(lambda word: stem(word[0].lower()), text)


def _secret(*texts: str) -> str | None:
    """Texts as they came count too: lower-casing, for one, hides what a key was."""
    return next((kind for text in dict.fromkeys(texts) if (kind := secret_in(text))), None)


def _blotted(before: str, after: str | None) -> str:
    """The text without its secret, as it was, unless the secret shows only after the repair."""
    seen = layout.visible(before)
    return without_secrets(seen if after is None or secret_in(seen) else after)
