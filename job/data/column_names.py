"""Column names: what the name of a column says of its use, whatever its case and punctuation.

It knows names only. What the values show is weighed in `leftout`, and a name alone decides as little as it can.
"""

import re


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


NEEDED = _names(
    """
    input inputs context contexts ctx passage passages paragraph paragraphs document documents doc docs article story
    background knowledge history chathistory conversation conversations dialog dialogs dialogue dialogues message
    messages turns system systemprompt systemmessage systemcontent persona instruction instructions schema table tables
    sqlcontext choices options image images picture photo audio video
    """
)
"""Names, without case and punctuation, of what a question needs wherever it is filled."""
ASKING = frozenset(["question", "query", "prompt", "userprompt"])
"""Another question: needed as well, unless the config itself has named the column of the questions."""
CLASSES = _names(
    """
    category categories subcategory topic topics subtopic label labels tag tags keyword keywords type types kind class
    task tasks domain domains subject subjects genre intent lang language locale section group date year version level
    difficulty
    """
)
"""Names of what sorts rows. They are needed only where most of the rows show it."""
_NEVER = re.compile(
    r"(?:.*_)?(?:id|ids|uid|uuid|guid|idx|index|hash|md5|sha\d*|url|urls|uri|link|links|href|filename|datetime|"
    r"timestamp|created|updated|modified|created_at|updated_at|score|scores|rating|ratings|votes|upvotes|likes|rank|"
    r"count|counts|length|len|tokens|annotator|worker|editor|reviewer|dataset|generator|license|licence|split|fold|"
    r"confidence|weight|embeddings?|vectors?|logits|logprobs|mask|meta|metadata|rejected|chosen|explanation|rationale|"
    r"reasoning|cot|answers?|responses?|outputs?|completions?|solutions?|distractors?|correct|is_correct|accepted|"
    r"verified|upvoted|unnamed_\d+)(?:_\d+|_level_\d+)*"
    r"|(?:num|n|nr|no|is|has)_.*|(?:answer|response|output|completion|index|unnamed)_.*"
)
"""Names of what numbers or rates a row, or how else it could be answered."""
_SELDOM = re.compile(
    r"(?:.*_)?(?:source|sources|origin|provenance|path|file|size|time|author|authors|user|username|model|model_name|"
    r"status|quality|thoughts?|thinking|feedback|critique|comments?|notes?|reply|replies|targets?)(?:_\d+)*|source_.*"
)
"""Names of what mostly says where a row is from, but may be what the question is about: the source of a translation,
the comment to be rated."""


def is_one_of(name: str, names: frozenset[str]) -> bool:
    """Case, punctuation, a number, and the word text apart: `Context_1`, `input text`."""
    plain = re.sub(r"[\W\d_]+", "", name.lower())
    return plain in names or plain.removesuffix("text") in names or plain.removeprefix("text") in names


def never_matters(name: str) -> bool:
    return _NEVER.fullmatch(_snake(name)) is not None


def seldom_matters(name: str) -> bool:
    return _SELDOM.fullmatch(_snake(name)) is not None


def _snake(name: str) -> str:
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())).strip("_").lower()
