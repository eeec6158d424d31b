"""Other wordings of a question: what they are, and what they never change."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.data.paraphrase import wordings

ASKING = frozenset(
    re.findall(
        r"\w+",
        """
what which who whom where when why how in the of is are was were do does did tell me i want to know you can have a
question please answer this explain define describe meant by for reason number many there year country city town place
price cost weight weigh much length width height depth age long wide high tall deep heavy old birthplace born meaning
mean way at on from with hi
""",
    )
)
"""Words of the question's form, which the rules may add, leave out or exchange."""


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is a nutmeg?", "Explain what a nutmeg is."),
        ("What is a nutmeg?", "What's a nutmeg?"),
        ("What's the weight of a ball?", "What is the weight of a ball?"),
        ("How wide is a goal?", "What is the width of a goal?"),
        ("How wide is a goal?", "Tell me the width of a goal."),
        ("When was the first cup held?", "Do you know when the first cup was held?"),
        ("Who won the cup?", "Tell me who won the cup."),
        ("Who won the cup in 1998?", "In 1998, who won the cup?"),
        ("In which year was FIFA founded?", "When was FIFA founded?"),
        ("How many Laws of the Game are there?", "What is the number of Laws of the Game?"),
        ("Which club won?", "What club won?"),
        ("Hi, how do I reset my password, please?", "How do I reset my password?"),
        ("Could you tell me where the station is?", "Tell me where the station is."),
        ("Why is water not blue?", "For what reason is water not blue?"),
        ("Who is not allowed?", "Who isn't allowed?"),
        ("Can a goal be scored from a throw-in?", "I have a question: can a goal be scored from a throw-in?"),
    ],
)
def test_a_wording(question: str, expected: str) -> None:
    assert expected in wordings(question)


@pytest.mark.parametrize(
    "question",
    [
        "Reset my password.",
        "What is a bull? Explain.",
        "Two lines:\nwhat do they say?",
        "DNS",
        "2+2?",
        "Was ist ein Elfmeter",
        "",
    ],
)
def test_a_text_that_is_not_one_question_has_none(question: str) -> None:
    assert wordings(question) == []


@pytest.mark.parametrize(
    ("question", "wrong"),
    [
        ("What was the cup called before 2009?", "the cup called before 2009 was"),
        ("What is the number of players that aren't allowed?", "aren't is allowed"),
        ("Where is the United?", "where the is United"),
        ("What's he done?", "What is he done"),
        ("Who won in 1979 and in 1980?", "In 1980"),
        ("Which of the two is older?", "What of"),
        ("How many of them are there?", "number of of"),
        ("What is the US?", "the us"),
        ("Where does Polish come from?", "polish"),
    ],
)
def test_what_a_rule_must_not_make(question: str, wrong: str) -> None:
    assert not [text for text in wordings(question) if wrong in text]


def test_no_wording_is_the_question_and_none_comes_twice() -> None:
    for question in ("What is a nutmeg?", "Tell me who won the cup.", "Which club won the cup in 1998?"):
        texts = wordings(question)
        assert texts == wordings(question), "the order is fixed"
        assert question not in texts and len(set(texts)) == len(texts) >= 3


NAMES = st.sampled_from(
    ["Ada Lovelace", "the US", "VAR", "Law 11", "iPhone 7", "C++", "Polish", "the Laws of the Game"]
)
THINGS = st.sampled_from(
    ["the ball", "a goal", "an own goal", "the 7.32 m goal", "5 km", "-40 degrees", "pH 7", "the two players not named"]
)
ENDS = st.sampled_from(["", " in 1998", " in 1998 and 2002", " in Paris", " without VAR", " under 18", " never shown"])
STARTS = st.sampled_from(
    ["What is", "What are", "Who was", "Where is", "When was", "Why isn't", "How long is", "How many", "Which club won"]
    + ["Who won", "In which year did", "In which city was", "What does", "Is", "Can", "Hi, what is", "Who cannot see"]
    + ["Why do", "For which team did", "How much does", "Which players do not know", "How do I not lose"]
)
VERBS = st.sampled_from(["", " founded", " mean", " weigh", " cost", " born", " not allowed", " played", " are there"])


def content(text: str) -> Counter[str]:
    """The words that are not the question's form, with capitals but for the first word, and each negation."""
    spelled = text.replace("can't", "can not").replace("cannot", "can not").replace("won't", "will not")
    words = re.findall(r"[\w+.-]+\w|[\w+]+", re.sub(r"n't\b", " not", spelled).replace("'s", " is"))
    return Counter(word for word in words if word.lower() not in ASKING)


@given(start=STARTS, name=NAMES, thing=THINGS, verb=VERBS, end=ENDS, thing_first=st.booleans())
def test_names_numbers_units_and_negations_stay(
    start: str, name: str, thing: str, verb: str, end: str, thing_first: bool
) -> None:
    middle = f"{thing} of {name}" if thing_first else f"{name} near {thing}"
    question = f"{start} {middle}{verb}{end}?"
    for text in wordings(question):
        assert content(text) == content(question), text


@given(st.text(max_size=60))
def test_any_text_has_wordings_without_an_error(text: str) -> None:
    assert text not in wordings(text)
