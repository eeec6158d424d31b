"""F1 and exact match: SQuAD's numbers on ordinary English, and no answer lost that SQuAD's script loses."""

import json
import random
import re
import string
from collections import Counter

import pytest
from checkout import ROOT
from hypothesis import given
from hypothesis import strategies as st

from job.evaluation.metrics import exact_match, f1, tokens

SOCCER = ROOT / "examples" / "soccer" / "dataset.json"


def squad_normalised(text: str) -> str:
    """`normalize_answer` of SQuAD's evaluate-v1.1.py."""
    plain = "".join(character for character in text.lower() if character not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", plain).split())


def squad_f1(prediction: str, truth: str) -> float:
    """`f1_score` of SQuAD's evaluate-v1.1.py."""
    given, expected = squad_normalised(prediction).split(), squad_normalised(truth).split()
    same = sum((Counter(given) & Counter(expected)).values())
    if same == 0:
        return 0
    precision, recall = 1.0 * same / len(given), 1.0 * same / len(expected)
    return (2 * precision * recall) / (precision + recall)


def ordinary_english() -> list[tuple[str, str]]:
    answers = [row["answer"] for row in json.loads(SOCCER.read_text())]
    chance = random.Random(0)
    pairs = [(one, other) for one in answers for other in (one, chance.choice(answers))]
    for answer in answers:  # as a model errs: words missing, repeated, in another order, in other case
        words = answer.split()
        pairs += [
            (" ".join(words[: len(words) // 2]), answer),
            (" ".join(words + words[:3]), answer),
            (" ".join(chance.sample(words[1:], len(words) - 1)), answer),
            (answer.upper(), answer),
        ]
    return [
        *pairs,
        ("Denver Broncos", "the Denver Broncos."),
        ("$1.2 million", "1.2 million"),
        ("12%", "12 percent"),
        ("February 7, 2016", "7 February 2016"),
        ("Saint-Denis, France", "St. Denis"),
        ("about 1,500 people", "1500"),
        ("It's (really) \"that\" one; isn't it?", "its really that one isnt it"),
        ("and/or, e.g. the U.S.A. & an e-mail", "andor eg USA email"),
        ("the rock 'n' roll era; pre- and post-war", "rock n roll era, pre and postwar"),
        ("Who? Me! [sic] {x} #1 @home ~ 50_000", "who me sic x 1 home 50000"),
        ("a B-52 and two F-16s; vitamin B-12 or b-12", "B52 and two F16s vitamin B12 or b12"),
        ("COVID-19, omega-3, N-95 and K-12", "covid19 omega3 N95 and K12"),
        ("5-a-side in a 3-d film, 24-h, with a 5-m and a 12-v", "5aside in 3d film 24h with 5m and 12v"),
        ("2- and 3-year-olds in a t-shirt at an x-ray", "2 and 3yearolds in tshirt at xray"),
        ("a U-boat, e-mail, T-34 (n/a), w/o a - b", "uboat email T34 na wo b"),
        ("The answer - as I see it - is: 5 - no more; Plan A - B", "answer as I see it is 5 no more plan a b"),
        ("- first\n- second\n-third (pre- or post-war)", "first second third pre or postwar"),
    ]


def test_on_ordinary_english_the_metrics_equal_squads() -> None:
    pairs = ordinary_english()
    assert len(pairs) > 1900
    for answer, expected in pairs:
        assert f1(answer, expected) == squad_f1(answer, expected), (answer, expected)
        assert exact_match(answer, expected) == (squad_normalised(answer) == squad_normalised(expected))


@pytest.mark.parametrize(
    ("given", "expected", "score"),
    [
        ("The cat sat.", "a cat sat", 1.0),
        ("cat", "cat sat", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("cat cat", "cat", 2 / 3),
    ],
)
def test_f1_as_squad_counts_it(given: str, expected: str, score: float) -> None:
    assert f1(given, expected) == pytest.approx(score)


@pytest.mark.parametrize(
    "text", ["+", "-", "A", "a.", "the", "The.", "?", "...", "!=", "的", "。", "👍", "“”", "§", "ก"]
)
def test_an_answer_is_never_nothing(text: str) -> None:
    for nothing in ("", " ", "\n", "\u200b"):
        assert (f1(text, nothing), f1(nothing, text)) == (0, 0)
        assert not exact_match(text, nothing)
        assert not exact_match(nothing, text)
        assert (f1(nothing, ""), exact_match(nothing, "")) == (1, True), "an empty answer where one is expected"
    assert (f1(text, text), exact_match(text, f" {text.upper()} ")) == (1, True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("+", "-"), ("+", "*"), ("!=", "="), ("==", "="), (">=", ">"), (";", ":"), ("?", "!"), ("。", "，")),
        *(("A", "the"), ("A", "an"), ("The", "a"), ("the", "B")),
        *(("-5", "5"), ("−5", "5"), ("–5 °C", "5 °C"), ("(-5)", "5"), ("-$5", "$5"), ("+5", "-5"), ("-.5", ".5")),
        *(("1.5", "15"), ("0.5", "05"), (".5", "5"), ("1,5", "15"), ("3.14", "314"), ("1.2.3", "12.3"), ("١٫٥", "١٥")),
        *(("10:30", "1030"), ("1/2", "12"), ("2019-20", "201920"), ("10^6", "106"), ("2*3", "23"), ("4-3", "4/3")),
        *(("C++", "C"), ("C#", "C"), ("C++", "C#"), ("F#", "f"), ("x < 5", "x > 5"), ("x != y", "x = y")),
        *(("A+", "A"), ("A-", "A"), ("A+", "A-"), ("0+", "0-"), ("AB-", "AB"), ("Cl-", "Cl"), ("Na+", "Na")),
        *(
            ("5 * 3", "5 / 3"),
            ("x^2", "x2"),
            ("a -> b", "a <- b"),
            ("vitamin A", "vitamin"),
            ("Plan A.", "plan"),
            ("Serie A", "the Serie"),
        ),
        *(("1e-5", "1e5"), ("6.02e-23", "6.02e23"), ("1E-9 m", "1E9 m"), ("1e-5", "1e+5"), ("2^-3", "2-3")),
        *(("y = -x", "y = x"), ("-x", "x"), ("(-x)", "(x)"), ("y=-x", "y=x"), ("−x", "x"), ("x^-y", "x^y")),
        *(("y = -sin x", "y = sin x"), ("x = - 3", "x = 3"), ("y = -2x", "y = 2x"), ("-n", "n"), ("x^-n", "xn")),
        *(
            ("5 - 3", "5 3"),
            ("5 - x", "5 x"),
            ("x - y", "x y"),
            ("2x - 3", "2x 3"),
            ("5 * (3", "5 3"),
            ("x / 2", "x 2"),
        ),
        *(("n-1", "n1"), ("x-1", "x1"), ("2x-3", "2x3"), ("3-x", "3x"), ("x-y", "xy"), ("n/2", "n2"), ("1/n", "1n")),
        *(("2x*3", "2x3"), ("a*b", "ab"), ("2*x", "2x"), ("(x+1)^2", "(x+1)2"), ("10^(-3)", "10^3")),
        *(("HCO3-", "HCO3"), ("NO3-", "NO3"), ("CH3COO-", "CH3COO"), ("SO4 2-", "SO4 2"), ("PO4^3-", "PO4^3")),
        *(("O2-", "O2"), ("HCO3-.", "HCO3"), ("HCO3- and H+", "HCO3 and H+")),
    ],
)
def test_signs_that_alone_distinguish_two_answers_count(one: str, other: str) -> None:
    assert not exact_match(one, other)
    assert f1(one, other) < 1
    assert exact_match(one, one) and exact_match(other, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("−5", "-5"), ("1,500,000", "1500000"), ("2010–11", "2010-11"), ("5.", "5"), ("1.5.", "1.5"), ("- 5", "5")),
        *(("A.", "A"), ("(a)", "A"), ("“Paris”", "Paris"), ("Paris…", "paris"), ("don’t", "don't"), ("¿Qué?", "qué")),
        *(("Straße", "STRASSE"), ("e\u0301te\u0301", "été"), ("می\u200cخواهم", "میخواهم"), ("co\u00adop", "coop")),
        *(
            ("北京。", "北京"),
            ("北京 市", "北京市"),
            ("C 语言", "C语言"),
            ("「はい」", "はい"),
            ("vitamin a", "Vitamin A"),
        ),
    ],
)
def test_equal_answers_in_different_form_match(one: str, other: str) -> None:
    assert exact_match(one, other)
    assert f1(one, other) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("北京市", ["北", "京", "市"]),
        ("東京タワーへ", ["東", "京", "タ", "ワ", "ー", "へ"]),
        ("ประเทศไทย", ["ป", "ร", "ะ", "เ", "ท", "ศ", "ไ", "ท", "ย"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("ເມືອງ", ["ເ", "ມື", "ອ", "ງ"]),
        ("ភ្នំពេញ", ["ភ្", "នំ", "ពេ", "ញ"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("iPhone 15的价格是5999.5元", ["iphone", "15", "的", "价", "格", "是", "5999.5", "元"]),
        ("서울 시청은 어디", ["서울", "시청은", "어디"]),
        ("كرة القدم، نعم", ["كرة", "القدم", "نعم"]),
        ("हिन्दी में।", ["हिन्दी", "में"]),
        ("Tiếng Việt", ["tiếng", "việt"]),
    ],
)
def test_words_or_characters(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_a_character_too_many_is_not_everything() -> None:
    assert f1("北京", "北京市") == pytest.approx(0.8)
    assert f1("ประเทศไทย", "ไทย") == pytest.approx(2 * 3 / 12)
    assert f1("的", "目的") == pytest.approx(2 / 3)


@given(st.text(), st.text())
def test_any_two_texts(one: str, other: str) -> None:
    assert f1(one, other) == f1(other, one)
    assert 0 <= f1(one, other) <= 1
    assert exact_match(one, other) <= (f1(one, other) == 1)
    assert f1(one, one) == exact_match(one, one) == 1
    assert not exact_match(one, "") or not "".join(tokens(one))
