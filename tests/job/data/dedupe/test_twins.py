"""Twins: what is found among rows with known twins, and that the hashing finds what a comparison of all pairs finds."""

import itertools
import json
import random

import datasets
import numpy as np
import opposites
import pytest
from checkout import ROOT

from job.config.schema import DedupeSection, SplitSection
from job.data import split
from job.data.dedupe import dedupe, twins
from job.data.dedupe.spelling import changes
from job.data.dedupe.wording import normalise_wording

SOCCER = json.loads((ROOT / "examples/soccer/dataset.json").read_text())
KINDS = ("typo", "two typos", "order", "punctuation", "case")


def misspelt(text: str, chance: random.Random, count: int = 1) -> str:
    """A letter doubled, dropped, replaced or swapped with the next, in `count` different words of four or more."""
    words = text.split()
    long = [number for number, word in enumerate(words) if len(word.strip("?.,")) >= 4 and word.strip("?.,").isalpha()]
    for number in chance.sample(long, min(count, len(long))):
        word = words[number]
        place = chance.randrange(len(word.strip("?.,")) - 1)
        edit = chance.choice(["double", "drop", "replace", "swap"])
        kept = {
            "double": word[place] * 2,
            "drop": "",
            "replace": chance.choice("aeiorstn"),
            "swap": word[place + 1] + word[place],
        }
        words[number] = word[:place] + kept[edit] + word[place + (2 if edit == "swap" else 1) :]
    return " ".join(words)


def reordered(text: str) -> str:
    """ "What is offside in soccer?" as "In soccer, what is offside?" """
    words = text.rstrip("?.").split()
    middle = len(words) // 2
    return " ".join([*words[middle:], *words[:middle]]).capitalize() + "?"


def twin(kind: str, row: dict[str, str], chance: random.Random) -> dict[str, str]:
    question = {
        "typo": lambda text: misspelt(text, chance),
        "two typos": lambda text: misspelt(text, chance, 2),
        "order": reordered,
        "punctuation": lambda text: "¿" + text.replace(" ", "  ", 1).rstrip("?") + " ...?!",
        "case": str.upper,
    }[kind](row["question"])
    return {"question": question, "answer": row["answer"]}


def dataset(rows: list[dict[str, str]]) -> datasets.Dataset:
    columns = {name: [row[name] for row in rows] for name in ("question", "answer")}
    where = [str(number) for number in range(len(rows))]
    return datasets.Dataset.from_dict(
        {**columns, "where": where, "group": [None] * len(rows)},
        features=datasets.Features(dict.fromkeys(("question", "answer", "where", "group"), datasets.Value("string"))),
    )


@pytest.mark.parametrize("seed", [7, 8])
def test_precision_and_recall_on_known_twins(seed: int) -> None:
    """Five twins of each row of the example; its rows differ, so each of them that is dropped is a wrong find."""
    chance = random.Random(seed)
    rows = [*SOCCER, *(twin(kind, row, chance) for row in SOCCER for kind in KINDS)]
    _, _, rejected, _ = dedupe.dedupe(DedupeSection(), dataset(rows))
    found = {int(row.where): int(row.reason.split(" (")[0].split(",")[0].split()[-1]) for row in rejected}
    original = {
        len(SOCCER) + number * len(KINDS) + kind: number for number in range(len(SOCCER)) for kind in range(len(KINDS))
    }
    wrong = [
        (rows[row], rows[before]) for row, before in found.items() if original.get(row) != original.get(before, before)
    ]
    missed = [rows[row]["question"] for row in original if row not in found]
    print(f"seed {seed}: {len(found)} dropped, {len(wrong)} wrongly; recall {1 - len(missed) / len(original):.3f}")
    assert wrong == []
    assert len(missed) <= 0.05 * len(original), missed[:10]


@pytest.mark.parametrize(("seed", "size", "count"), [(1, 100, 2000), (2, 250, 1000), (3, 1, 40)])
def test_no_opposite_is_dropped(seed: int, size: int, count: int) -> None:
    """Pairs that say different things, `size` of them in one data set. Each pair has an answer of its own."""
    pairs = list(opposites.opposites(seed, count))
    for start in range(0, count, size):
        rows: list[dict[str, str]] = []
        for number, (one, other, others) in enumerate(pairs[start : start + size]):
            rows += [{"question": f"{asked} ({number})", "answer": f"{told} {number}"} for asked, told in (one, other)]
            rows += [{"question": f"{asked} {number}", "answer": f"{told} {number}"} for asked, told in others]
        _, _, rejected, _ = dedupe.dedupe(DedupeSection(), dataset(rows))
        assert [(rows[int(row.where)], row.reason) for row in rejected] == []


BRANCHES = {
    "zh": ("{}州门店每天的营业时间是几点到几点？", "每天早上九点开门，晚上八点关门。", "杭苏徐扬常泰温台广郑福兰"),
    "ko": (
        "강{}지점 영업시간은 몇 시부터 몇 시까지인가요?",
        "아침 아홉 시부터 저녁 여덟 시까지 영업합니다.",
        "남북서동",
    ),
    "th": ("สาขา{}เปิดกี่โมงและปิดกี่โมง", "เปิดเก้าโมงเช้าและปิดสองทุ่มทุกวัน", ["ลำปาง", "ลำพูน", "ตรัง", "ตราด"]),
    "en": (
        "Which elements does the ion {} consist of?",
        "It has oxygen.",
        ["nitrate", "nitrite", "chlorate", "chlorite"],
    ),
}


@pytest.mark.parametrize("language", BRANCHES)
@pytest.mark.parametrize("own", [False, True])
def test_one_sentence_about_many_things(language: str, own: bool) -> None:
    """All rows stay, and some of them are for testing: a template is no family."""
    asked, told, names = BRANCHES[language]
    rows = [
        {"question": asked.format(name), "answer": f"{told}{number if own else ''}"}
        for number, name in enumerate(names)
    ]
    kept, _, rejected, found = dedupe.dedupe(DedupeSection(), dataset(rows))
    assert (len(kept), rejected) == (len(rows), [])
    parts = split.split(SplitSection(), 42, kept, None, found.families)
    assert 1 <= len(parts["test"]) <= 2


def test_doubtful_twins_are_reported() -> None:
    rows = [
        {"question": "Is ethane a gas at room temperature?", "answer": "Yes, it is a gas."},
        {"question": "Is ethene a gas at room temperature?", "answer": "Yes, it is a gas."},
        {"question": "Who wrote the book?", "answer": "A man of whom little is known."},
        {"question": "Where does the river end?", "answer": "In the sea."},
    ]
    kept, _, rejected, found = dedupe.dedupe(DedupeSection(), dataset(rows))
    assert (len(kept), rejected) == (4, [])
    (couple,) = found.doubtful
    assert [row.question for row in couple.rows] == [row["question"] for row in rows[:2]]
    assert found.families.tolist() == [0, 0, 2, 3], "they may repeat each other, so they are on one side"


CANNED = "Please open a ticket with our support team; they answer within two working days."
NAMES = ["".join(letters) for letters in itertools.product("bdgkmprt", "aeio", "lnrs", "aeio", "bdgt")]


@pytest.mark.parametrize("question", ["What is {}?", "How do I reset the {} of my account in the new office?"])
def test_many_questions_with_one_answer(question: str) -> None:
    """The work grows with the rows, and the rows are split like any others."""
    rows = [{"question": question.format(name), "answer": CANNED} for name in NAMES]
    given = dataset(rows)
    kin = twins.find_families(twins.normalise_rows(given), 0.7)
    assert kin.compared <= len(rows) * 2 * twins.MAX_COMPARED_COMMON
    kept, _, rejected, found = dedupe.dedupe(DedupeSection(), given)
    assert (len(kept), rejected) == (2048, [])
    parts = split.split(SplitSection(), 42, kept, None, found.families)
    assert len(parts["test"]) == round(0.15 * len(rows))


def test_what_is_kept_together() -> None:
    questions = [
        "How do I reset my password?",
        "Where is the invoice?",
        "Can I pay by card?",
        "Who repairs a broken screen?",
    ]
    rows = [{"question": question, "answer": CANNED} for question in questions]
    rows += [{"question": "where is teh invoice", "answer": CANNED}]
    section = DedupeSection(near=False)
    near, answers, off = (
        dedupe.dedupe(section, dataset(rows), None, choice)[3].families.tolist()
        for choice in ("near_twins", "answers", "off")
    )
    assert (near, answers, off) == ([0, 1, 2, 3, 1], [0] * 5, [0, 1, 2, 3, 4])


def test_the_order_of_words() -> None:
    answer = "Yes, that has often happened in the years since."
    rows = [
        {"question": "Does the cat often chase the dog?", "answer": answer},
        {"question": "Does the dog often chase the cat?", "answer": answer},
        {"question": "Often chase the dog does the cat?", "answer": answer},
    ]
    _, _, rejected, _ = dedupe.dedupe(DedupeSection(), dataset(rows))
    assert [row.where for row in rejected] == ["2"], "only a phrase that moved to the front is the same question"


def test_a_misspelt_owner_is_a_misspelling() -> None:
    answer = "It was the midfielder, in the last minute of the game."
    questions = ["Who scored Spain's winning goal in the final?", "Who scored Spain's winnnig goal in the final?"]
    questions += ["In the final who scored Spain's winning goal?", "Who heard the referee's whistle in the final?"]
    questions += ["Who heard the refreee's whistle in the final?"]
    others = [{"question": f"Was a referee winning the {name}?", "answer": name} for name in ("cup", "toss")]
    rows = [{"question": question, "answer": answer} for question in questions]
    _, _, rejected, _ = dedupe.dedupe(DedupeSection(), dataset([*rows, *others]))
    assert [row.where for row in rejected] == ["1", "2", "4"]


def test_the_words_of_the_data_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def count(rows: datasets.Dataset) -> twins.Vocabulary:
        counted.append(len(rows))
        return vocabulary(rows)

    vocabulary = twins.Vocabulary
    monkeypatch.setattr(twins, "Vocabulary", count)
    dedupe.dedupe(DedupeSection(), dataset(SOCCER[:20]))
    assert counted == [20]


def test_synonyms_are_not_expected() -> None:
    rows = [
        {"question": "What is a car?", "answer": "A motor vehicle with four wheels."},
        {"question": "What is an auto?", "answer": "A motor vehicle with four wheels."},
    ]
    assert dedupe.dedupe(DedupeSection(), dataset(rows))[2] == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How many people live in Rome?", "How many people live in Roma now?"),
        ("What is 17 plus 25?", "What is 17 plus 26?"),
        ("What is C?", "What is C++?"),
        ("Is it legal to use hands?", "Is it illegal to use hands?"),
        ("Can a goalkeeper leave?", "Can't a goalkeeper leave?"),
    ],
)
def test_other_words_numbers_and_symbols_are_no_misspellings(one: str, other: str) -> None:
    assert changes(normalise_wording(one), normalise_wording(other)) is None


def test_no_twins_on_both_sides_by_brute_force() -> None:
    """Rows of soccer, with edits, none dropped: all pairs of train and test compared in full."""
    chance = random.Random(3)
    rows = [
        {"question": misspelt(row["question"], chance), "answer": misspelt(row["answer"], chance)}
        for row in SOCCER * twins.MAX_WORDINGS
    ]
    section = DedupeSection(exact=False, near=False)
    given = dataset(rows)
    kept, _, _, found = dedupe.dedupe(section, given)
    parts = split.split(SplitSection(), 42, kept, None, found.families)
    spelled = twins.normalise_rows(given)
    judge, texts = twins.Judge(spelled), list(spelled)
    grams = twins.trigram_sets(spelled["question"][:], spelled["answer"][:])
    sides = ([int(where) for where in parts[name]["where"]] for name in ("train", "test"))
    pairs = list(itertools.product(*sides))
    assert len(pairs) > 200_000
    leaks = [
        (rows[one], rows[other])
        for one, other in pairs
        if twins.jaccard(grams[one], grams[other]) >= section.threshold
        and judge.verdict(texts[one], texts[other]) != "apart"
    ]
    assert leaks == []
    assert len(np.unique(found.families)) >= 300, "the families did not all become one"
