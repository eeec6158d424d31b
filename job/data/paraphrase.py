"""Paraphrase: makes other wordings of an English question by rules.

The rules change how a question is asked and never what it asks: openers ("Tell me what a nutmeg is."), contractions
("What's a nutmeg?"), word order ("In 1998, who won?"), politeness that is left out, and question words ("In which year"
becomes "When"). All other words stay as they are, so numbers, names, units and negations do. A question that no rule
fits has no other wording: a text of several lines or sentences, one in another language, and one that is no question.

It knows one question at a time. It does not know rows, and it draws nothing: the order of the wordings is fixed.
"""

import re
from collections.abc import Iterator

_AUXILIARY = (
    r"(?:is|are|was|were|am|do|does|did|has|have|had|can|could|may|might|must|shall|should|will|would|cannot|"
    r"(?:is|are|was|were|do|does|did|has|have|had|ca|could|should|would|wo)n't)"
)
_QUESTION_WORD = r"(?:(?:at|by|for|from|in|on|to|under|with) )?(?:what|which|who|whom|whose|when|where|why|how)"
_QUESTION = re.compile(rf"(?:{_QUESTION_WORD}|{_AUXILIARY})(?:'s)? [^?!\n]+\?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!:;] ")
_GREETING = re.compile(r"^(?:(?:hi|hello|please|excuse me),? )+", re.IGNORECASE)
_REQUEST = re.compile(
    rf"(?:(?:(?:can|could|would|will) you (?:please )?)?tell me|do you know|i want to know|i would like to know) "
    rf"({_QUESTION_WORD} [^?.!:\n]+)[?.]",
    re.IGNORECASE,
)
_PLEASE = re.compile(r",? please(?=\?$)", re.IGNORECASE)
_PARTICIPLE = r"(?:\w{3,}(?<!e)ed|used|born|built|held|made|given|taken|sent|sold|paid|written|known|shown|chosen|won)"
_NO_PARTICIPLES = frozenset({"hundred", "limited", "naked", "sacred", "unlimited", "united", "wicked"})
_DETERMINER = r"(?:(?:a|an|the|another) |[A-Z][\w-]*'s? )"
_PREPOSITIONS = (
    r"(?:about|after|against|among|at|before|behind|between|by|during|for|from|in|into|like|near|of|off|on|onto|out|"
    r"over|since|through|to|towards?|under|until|up|upon|with|within|without)"
)
_OF_A_CLAUSE = re.compile(
    rf"\b(?:{_AUXILIARY}|{_PARTICIPLE}|\w+ing|be|have|than|when|if|that|who|which|what|where|to|mean)\b"
    rf"|\b{_PREPOSITIONS}$"
)
"""What a noun phrase does not have, or not at its end."""
_MEASURES = {
    "long": "length", "wide": "width", "high": "height", "tall": "height", "deep": "depth", "heavy": "weight",
    "old": "age",
}  # fmt: skip
_YEAR = re.compile(r"(?<! and)(?<! or)(?<! to)(?<! from)(?<! than) ((?:in|since|until|before|after) (?:the )?\d{4})\?$")
_PLACE = re.compile(r"(?<! and)(?<! or)(?<! to)(?<! from) (in (?:[A-Z][\w-]*)(?: [A-Z][\w-]*)*)\?$")
_CONTRACTIONS = tuple(
    (re.compile(pattern), form)
    for pattern, form in (
        (r"^(What|Who|Where) is\b", r"\1's"),
        (r"^(What|Who|Where)'s (?=(?:a|an|the) )", r"\1 is "),  # elsewhere it may stand for "has"
        (r"\b(is|are|was|were|do|does|did|has|have|had|could|should|would) not\b", r"\1n't"),
        (r"\bcannot\b", "can't"),
        (r"\bcan't\b", "cannot"),
        (r"\bwill not\b", "won't"),
    )
)
_DEFINITIONS = ("Explain what {} is.", "What is meant by {}?", "Define {}.", "Describe {}.")
_REQUESTS = ("Tell me {}.", "Do you know {}?", "I want to know {}.", "Can you tell me {}?")
"""Before an indirect question, or a noun phrase."""
_OPENERS = ("I have a question: {}", "Tell me, {}", "Please answer this: {}")
"""Before a question as it stands."""


def wordings(question: str) -> list[str]:
    """List other wordings of a question, each of which asks the same.

    Args:
        question: clean, in English.

    Returns:
        Different texts, none of them the question; those that change more come first.
    """
    plain = _PLEASE.sub("", _GREETING.sub("", question))
    if match := _REQUEST.fullmatch(plain):
        return [text for request in _REQUESTS if (text := request.format(match[1])) != question]
    if not _QUESTION.fullmatch(plain) or _SENTENCE_END.search(plain):
        return []
    plain = _upper_start(plain)
    forms = [plain, *_forms(plain)]
    texts = [request for form in forms for request in _requests(form)]
    texts += forms
    texts += [other for form in forms for other in _contracted(form)]
    texts += [opener.format(_lower_start(form)) for form in forms for opener in _OPENERS]
    return [text for text in dict.fromkeys(texts) if text != question]


def _forms(question: str) -> Iterator[str]:
    """Give the question with other question words, or in another word order."""
    for pattern, form in _QUESTION_FORMS:
        match = pattern.fullmatch(question)
        if match:
            yield _upper_start(match.expand(form))
    if match := re.fullmatch(rf"How ({'|'.join(_MEASURES)}) (is|are|was|were) ({_DETERMINER}.+)\?", question):
        verb = {"are": "is", "were": "was"}.get(match[2], match[2])
        if not _OF_A_CLAUSE.search(match[3]):
            yield f"What {verb} the {_MEASURES[match[1]]} of {match[3]}?"
    for pattern in (_YEAR, _PLACE):
        if match := pattern.search(question):
            yield f"{_upper_start(match[1])}, {_lower_start(question[: match.start()])}?"


_SUBJECT_ASKED = re.compile(
    r"(?:Who|(?:Which|What|Whose) [\w-]+(?: [\w-]+)?|How many [\w-]+) (?:\w+ed|won|led|began|made|wrote) .+\?"
)
"""A question whose subject is the question word, so that its word order is that of a clause."""
_BE = "(is|are|was|were)"
_QUESTION_FORMS = tuple(
    (re.compile(pattern), form)
    for pattern, form in (
        (rf"In (?:what|which) year ({_AUXILIARY} .+\?)", r"When \1"),
        (rf"In (?:what|which) (?:country|city|town|place) ({_AUXILIARY} .+\?)", r"Where \1"),
        (r"Which ((?!of\b|ones?\b).+\?)", r"What \1"),
        (r"(For|In|At|On|From|To|With|By) which (.+\?)", r"\1 what \2"),
        (r"How many ((?!of\b).+?) are there( .+)?\?", r"What is the number of \1\2?"),
        (r"How many ((?!of\b).+\?)", r"What number of \1"),
        (rf"Why ({_AUXILIARY} .+\?)", r"For what reason \1"),
        (r"How much does (.+) weigh\?", r"What is the weight of \1?"),
        (r"How much does (.+) cost\?", r"What is the price of \1?"),
        (r"What does (.+) mean\?", r"What is the meaning of \1?"),
        (r"How (do|does|did|can|could|must|should) (.+\?)", r"In what way \1 \2"),
        (r"Where (was|were) (.+) born\?", r"What is the birthplace of \2?"),
        (r"(Who|Whom) (did .+\?)", r"Whom \2"),
    )
)
"""(a whole question, another form of it)."""


def _requests(question: str) -> Iterator[str]:
    """Give requests with the question as a clause without inversion, or with the noun phrase that it asks for."""
    clause = _clause(question)
    if clause is not None:
        yield from (request.format(clause) for request in _REQUESTS)
    match = re.fullmatch(rf"What (is|are|was|were) ({_DETERMINER}.+)\?", question)
    if match is None or _OF_A_CLAUSE.search(match[2]):
        return
    if match[2].startswith(("a ", "an ")) and match[1] == "is":
        yield from (request.format(match[2]) for request in _DEFINITIONS)
    elif re.match(r"the [\w-]+(?: [\w-]+)? of ", match[2]):
        yield from (request.format(match[2]) for request in _REQUESTS)


def _clause(question: str) -> str | None:
    """Give the question as a clause ("who won", "what a nutmeg is"), or None if its word order is not clear."""
    if _SUBJECT_ASKED.fullmatch(question) and not re.search(rf"\b{_AUXILIARY}\b", question):
        return _lower_start(question[:-1])
    match = re.fullmatch(rf"(What|Who|Where|When|How|Why) {_BE} (.+)\?", question)
    if match is None:
        return None
    word, verb, rest = match[1].lower(), match[2], match[3]
    last = rest.split()[-1]
    passive = re.fullmatch(rf"((?:{_DETERMINER}|[A-Z]).+) ({_PARTICIPLE})", rest)
    if passive and last not in _NO_PARTICIPLES and not _OF_A_CLAUSE.search(passive[1]):
        return f"{word} {passive[1]} {verb} {passive[2]}"
    if word in ("what", "where") and re.match(_DETERMINER, rest) and not _OF_A_CLAUSE.search(rest):
        return f"{word} {rest} {verb}"
    return None


def _contracted(question: str) -> Iterator[str]:
    """Give the question with a contraction instead of two words, or the two words instead of it."""
    for pattern, form in _CONTRACTIONS:
        if pattern.search(question):
            yield pattern.sub(form, question, count=1)


def _upper_start(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower_start(text: str) -> str:
    """Begin a question word, an auxiliary or a preposition in lower case; the capital of a name stays."""
    is_asking = re.match(rf"(?:{_QUESTION_WORD}|{_AUXILIARY}|{_PREPOSITIONS})\b", text, re.IGNORECASE)
    return text[:1].lower() + text[1:] if is_asking else text
