"""Signs in questions: which carry meaning, which do not, and which the answers decide."""

import pytest
from deduping import ON, dataset, dedupe, kept
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from job.data.dedupe import dedupe as stage
from job.data.dedupe.wording import normalise_wording

SIGNS = [
    ("x-4=10", "x/4=10"), ("1/n", "1-n"), ("3-x", "3/x"), ("1/n", "1n"), ("x:y", "x.y"), ("e^-x", "e^x"),
    ("f'(x)", "f''(x)"), ("f'(x)", "f(x)"), ("f'", "f"), ("y'+y=0", "y''+y=0"), ("P(A')", "P(A)"), ("AB'", "AB"),
    ("5'", '5"'), ("5'", "5"), ("5‰", "5"), ("50%", "50"), ("5°", "5"), ("§5", "5"), ("° C", "C"), ("5〜6", "5 6"),
    ("⌊2.5⌋", "⌈2.5⌉"), ("‖x‖", "x"), ("f′(x)", "f(x)"), ("٣٫٥", "٣-٥"), ("A*", "A"), ("5!", "5"), ("n!", "n"),
    ("AB-", "AB"), ("AB−", "AB"), ("Cl-", "Cl"), ("Ca2+", "Ca2"), ("Ca2+", "Ca2-"), ("O-", "O+"),
    (":w", "w"), ("/etc", "etc"), ("../x", "/x"), ("./x", "x"), ("~/x", "x"), ("*.py", "py"), ("#1", "1"),
    ("@user", "user"), ("!x", "x"), ("$x", "x"), ("&x", "x"), ("__init__", "init"), ("_x", "x"), ("dir/", "dir"),
    ("foo()", "foo"), ("x_1", "x1"), ("x_1", "x 1"), ("log_2", "log 2"), ("a.b", "a b"), ("p->q", "p>q"),
    ("a:b", "a b"), ("a?b:c", "a b c"), ("f(g(x))", "f(g x)"), ("[1;2]", "[1,2]"), ("[1,100]", "[1100]"),
    ("[a,b)", "(a,b]"), ("[a,b)", "[a,b]"), ("[a, b)", "(a, b]"), ("[a, b)", "[a, b]"), ("(a, b]", "(a, b)"),
    ("(x+1)/2", "x+1/2"), ("1/(x+1)", "1/x+1"), ("2(x+1)", "2x+1"), ("(n+1)!/2", "(n+1)/2"),
    ("(2 + 3) * 4", "2 + (3 * 4)"), ("(2 + 3) * 4", "2 + 3 * 4"), ("A and (B or C)", "(A and B) or C"),
    ("its", "it's"), ("well", "we'll"), ("were", "we're"), ("l'eau", "leau"), ("re-sign", "resign"),
]  # fmt: skip
FRAMES = [
    "Is {} right?", "Solve {}.", "{}", "What do you call {}, and why?", "What is {}?!", "{} is what?", "I ask: {}",
    "It is '{}'.", 'What does "{}" do?', "Was ist „{}“?", "Why (as {} says)?", "为什么 {}？", "Tell me about {} ...",
]  # fmt: skip
ONLY_A_SENTENCE = {("5!", "5"), ("n!", "n")}
"""At its end they are exclamations."""


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(SIGNS), st.sampled_from(FRAMES))
def test_signs_that_carry_meaning(pair: tuple[str, str], frame: str) -> None:
    """In the middle of a sentence and at its end, in quotes and in brackets."""
    assume(pair not in ONLY_A_SENTENCE or frame in FRAMES[:1])
    one, other = (frame.format(text) for text in pair)
    assert normalise_wording(one) != normalise_wording(other)
    assert normalise_wording(f'"{one}"') == normalise_wording(one), "quotes around all of it say nothing"


def test_rows_that_differ_in_a_sign_stay_and_answers_that_do_are_two() -> None:
    answer = "It is what the book says, on its second page."
    texts = [f"Why is {text} right in part {'z' * number}?" for number, pair in enumerate(SIGNS) for text in pair]
    after, rejected = dedupe(ON, dataset([(text, answer) for text in texts]))
    assert (list(after["question"]), rejected) == (texts, [])
    rows = [(f"Why is part {'z' * number} right?", text) for number, text in enumerate(texts)]
    again = [(asked.upper(), texts[number ^ 1]) for number, (asked, _) in enumerate(rows)]
    after, rejected = dedupe(ON, dataset(rows + again))
    assert len(after) == len(rows)
    assert all(row.reason.endswith("with another answer") for row in rejected)


NAMES = st.sampled_from(["x", "y", "n", "A", "7", "12"])


@settings(max_examples=300, deadline=None)
@given(NAMES, NAMES, st.sampled_from("-/.:_^+*=<>,;|&~?"), st.sampled_from("-/.:_^+*=<>,;|&~?"))
def test_signs_between_single_letters_distinguish_questions(one: str, other: str, sign: str, second: str) -> None:
    assume(sign != second)
    texts = [f"Is {one}{between}{other} right?" for between in (sign, second, "", " ")]
    assert len({normalise_wording(text) for text in texts}) == 4


WORDS = st.lists(st.sampled_from(["what", "is", "the", "offside", "rule", "of", "a", "game"]), min_size=2, max_size=8)


@settings(max_examples=300, deadline=None)
@given(WORDS, st.data())
def test_punctuation_of_sentences_carries_no_meaning(words: list[str], data: st.DataObject) -> None:
    """Case, quotes around words, punctuation behind them, full-width letters, kinds of dashes, an ellipsis."""
    asked = " ".join(words)
    place = data.draw(st.integers(0, len(words) - 1))
    around = ['""', "''", "``", "“”", "‘’", "„“", "«»", "()", "「」", " ,", " :", " ;"]
    before, after = data.draw(st.sampled_from(around))
    written = [*words[:place], f"{before}{words[place]}{after}", *words[place + 1 :]]
    end = data.draw(st.sampled_from([".", "?", "!", "?!", "...", "…", " ...?!", "。", "？", " -", ' "', ""]))
    text = data.draw(st.sampled_from([str.upper, str.title, str.lower]))(" ".join(written).strip()) + end
    wide = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(ord("a"), ord("z") + 1)})
    for same in (text, f'"{text}"', f"“{text}”", f"¿{text}", f"...{text}", text.translate(wide)):
        assert normalise_wording(same) == normalise_wording(asked), same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is max-height?", "What is max_height?"),
        ("What does foo.bar mean?", "What does foo/bar mean?"),
        ("Compute 5!", "Compute 5."),
        ("Are men and (women or children) meant?", "Are (men and women) or children meant?"),
        ("What does save! do?", "What does save do?"),
        ("What is a price-15 rule?", "What is a price 15 rule?"),
    ],
)
def test_answers_decide_whether_an_ambiguous_sign_matters(one: str, other: str) -> None:
    assert normalise_wording(one) == normalise_wording(other)
    after, _, rejected, found = stage.dedupe(ON, dataset([(one, "The first answer."), (other, "Something else.")]))
    assert (len(after), rejected, found.conflicts) == (2, [], [])
    assert [row.question for row in found.doubtful[0].rows] == [one, other]
    assert found.families.tolist() == [0, 0]
    near = [(one, "It is used in the first half."), (other, "It is used in the frist half."), ("The first?", "First.")]
    assert dedupe(ON, dataset(near))[1] == [], "nor are they near twins"
    assert kept([one, other]) == [one]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is DNS?", '"what is dns"!'),
        ("What is DNS, then?", "- what is 'DNS' then ..."),
        ("How far are 1,000 miles?", "How far are 1000 miles!"),
        ("Ist es das „Haus“?", "Ist es das Haus"),
    ],
)
def test_a_sign_that_never_matters_does_not_make_a_question_new(one: str, other: str) -> None:
    _, _, rejected, found = stage.dedupe(ON, dataset([(one, "The first answer."), (other, "Something else.")]))
    assert (len(rejected), len(found.conflicts)) == (1, 1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is an e-mail?", "What is an email?"),
        ("What is an e-mail?", "What is an e mail?"),
        ("Is a GPT-4 model old?", "Is a GPT 4 model old?"),
        ("Is player(s) right?", "Is players right?"),
        ("Is it Node.js or not?", "Is it Nodejs or not?"),
    ],
)
def test_spellings_with_and_without_a_sign_stay_on_one_side(one: str, other: str) -> None:
    answer = "It is described on the second page of the book."
    others = [("Who wrote the novel?", "A man of whom little is known."), ("Where does the river end?", "In the sea.")]
    after, _, rejected, found = stage.dedupe(ON, dataset([(one, answer), (other, answer), *others]))
    assert (len(after), rejected) == (4, [])
    assert found.families.tolist() == [0, 0, 2, 3]


def test_very_many_open_quotes() -> None:
    text = "'a " * 50_000 + '"b ' * 50_000
    assert normalise_wording(text) == ("a " * 50_000 + "b " * 50_000).strip()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Is it from 1990–1994?", "is it from 1990-1994"),
        ("What was 1990-1994?", "What was 1990‒1994?"),
        ("It’s what?", "IT'S WHAT"),
        ("What is a 10-year rule?", "What is a 10 year rule?"),
        ("What is COVID-19?", "What is COVID 19?"),
        ("—What is DNS?", "What is DNS?"),
        ("Is 'f'' the name?", "Is f' the name?"),
        ("Is it ((a+b)*c)?", "Is it (a+b)*c?"),
        ("北京（中国）在哪里？", "北京 中国 在哪里"),
        ("你好，我是谁？", "你好 我是谁"),
        ("How far are 1,000 miles?", "How far are 1000 miles?"),
        ("What happened in 1990?", "What happened in 1990 ...?!"),
        ("Is it open at 10 am?", "IS IT OPEN AT 10 AM?"),
        ("What is\nDNS?", "What is DNS?"),
    ],
)
def test_signs_that_carry_no_meaning(one: str, other: str) -> None:
    assert kept([one, other]) == [one]
