"""Column names: what the name of a column says about its use, regardless of case and punctuation.

It knows names only. `unused_columns` weighs what the values show, and a name alone decides as little as it can.
"""

import re

from job.data.word_list import word_set

CONTEXT_NAMES = word_set(
    """
    input inputs context contexts ctx passage passages paragraph paragraphs document documents doc docs article story
    background knowledge history chathistory conversation conversations dialog dialogs dialogue dialogues message
    messages turns system systemprompt systemmessage systemcontent persona instruction instructions schema table tables
    sqlcontext choices options image images picture photo audio video
    """
)
"""Names, in lower case without punctuation, of columns that a question needs wherever they are filled."""
QUESTION_NAMES = frozenset(["question", "query", "prompt", "userprompt"])
"""Names of a second question column: needed too, unless the config names the column of the questions."""
CATEGORY_NAMES = word_set(
    """
    category categories subcategory topic topics subtopic label labels tag tags keyword keywords type types kind class
    task tasks domain domains subject subjects genre intent lang language locale section group date year version level
    difficulty
    """
)
"""Names of columns that sort rows into classes. They are needed only where most rows show that they are."""
_IRRELEVANT = re.compile(
    r"(?:.*_)?(?:id|ids|uid|uuid|guid|idx|index|hash|md5|sha\d*|url|urls|uri|link|links|href|filename|datetime|"
    r"timestamp|created|updated|modified|created_at|updated_at|score|scores|rating|ratings|votes|upvotes|likes|rank|"
    r"count|counts|length|len|tokens|annotator|worker|editor|reviewer|dataset|generator|license|licence|split|fold|"
    r"confidence|weight|embeddings?|vectors?|logits|logprobs|mask|meta|metadata|rejected|chosen|explanation|rationale|"
    r"reasoning|cot|answers?|responses?|outputs?|completions?|solutions?|distractors?|correct|is_correct|accepted|"
    r"verified|upvoted|unnamed_\d+)(?:_\d+|_level_\d+)*"
    r"|(?:num|n|nr|no|is|has)_.*|(?:answer|response|output|completion|index|unnamed)_.*"
)
"""Names of columns that number or rate a row, or hold another answer to it."""
_MOSTLY_IRRELEVANT = re.compile(
    r"(?:.*_)?(?:source|sources|origin|provenance|path|file|size|time|author|authors|user|username|model|model_name|"
    r"status|quality|thoughts?|thinking|feedback|critique|comments?|notes?|reply|replies|targets?)(?:_\d+)*|source_.*"
)
"""Names of columns that mostly say where a row is from, but may hold what the question is about: the source of a
translation, the comment to be rated."""


def has_name_in(name: str, names: frozenset[str]) -> bool:
    """Whether a column's name is one of some names, apart from case, punctuation, a number and the word text.

    Args:
        name: the column's, such as `Context_1` or `input text`.
        names: in lower case, without punctuation.
    """
    plain = re.sub(r"[\W\d_]+", "", name.lower())
    return plain in names or plain.removesuffix("text") in names or plain.removeprefix("text") in names


def is_irrelevant(name: str) -> bool:
    """Whether a column of this name is never needed to understand a question."""
    return _IRRELEVANT.fullmatch(_snake_case(name)) is not None


def is_mostly_irrelevant(name: str) -> bool:
    """Whether a column of this name is seldom needed to understand a question."""
    return _MOSTLY_IRRELEVANT.fullmatch(_snake_case(name)) is not None


def _snake_case(name: str) -> str:
    return re.sub(r"[\W_]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())).strip("_").lower()
