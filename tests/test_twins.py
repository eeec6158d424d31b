"""Twins: what is found among rows with known twins, and that the hashing finds what a comparison of all pairs finds."""

import itertools
import json
import random
from pathlib import Path

import datasets
import numpy as np
import pytest

from job import dedupe, split, twins
from job.config import DedupeSection, SplitSection
from job.spelling import differences, normalised

SOCCER = json.loads((Path(__file__).parents[1] / "examples/soccer/dataset.json").read_text())
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


def test_precision_and_recall_on_known_twins() -> None:
    """Five twins of each row of the example; its rows differ, so each of them that is dropped is a wrong find."""
    chance = random.Random(7)
    rows = [*SOCCER, *(twin(kind, row, chance) for row in SOCCER for kind in KINDS)]
    _, _, rejected, _ = dedupe.dedupe(DedupeSection(), dataset(rows))
    found = {int(row["where"]): int(row["reason"].split(" (")[0].split(",")[0].split()[-1]) for row in rejected}
    expected = {
        len(SOCCER) + number * len(KINDS) + kind: number for number in range(len(SOCCER)) for kind in range(len(KINDS))
    }
    print(f"precision {sum(expected.get(row) == before for row, before in found.items()) / len(found):.3f}", len(found))
    right = sum(expected.get(row) == before for row, before in found.items())
    missed = [rows[row]["question"] for row in expected if row not in found]
    assert right / len(found) >= 0.98, [
        (rows[row], rows[found[row]]) for row in found if expected.get(row) != found[row]
    ][:5]
    assert right / len(expected) >= 0.95, missed[:10]


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
    assert differences(normalised(one), normalised(other)) is None


def test_no_kin_on_both_sides_by_brute_force() -> None:
    """2,000 rows of soccer, with edits, none dropped: all pairs of train and test compared in full."""
    chance = random.Random(3)
    rows = [
        {"question": misspelt(row["question"], chance, 2), "answer": misspelt(row["answer"], chance)}
        for row in SOCCER * 6
    ][:2000]
    section = DedupeSection(exact=False, near=False)
    given = dataset(rows)
    kept, _, _, found = dedupe.dedupe(section, given)
    parts = split.split(SplitSection(), 42, kept, None, found["families"])
    texts = twins.spelled(given)
    grams = twins.sets(texts["question"][:], texts["answer"][:])
    spelled = list(zip(texts["question"][:], texts["answer"][:], strict=True))
    sides = ([int(where) for where in parts[name]["where"]] for name in ("train", "test"))
    pairs = list(itertools.product(*sides))
    assert len(pairs) > 400_000
    leaks = [
        (rows[one], rows[other])
        for one, other in pairs
        if twins.overlap(grams[one], grams[other]) >= section.threshold
        and twins.are_kin((spelled[one][0], spelled[other][0]), (spelled[one][1], spelled[other][1]))
    ]
    assert leaks == []
    assert len(np.unique(found["families"])) >= 300, "the families did not all become one"
