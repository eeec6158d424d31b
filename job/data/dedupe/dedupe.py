"""Dedupe: of rows that say the same, one is kept.

It knows rows that ask the same up to case, punctuation and blanks; near twins (misspelt, in another word order); and,
if the config names a model, rows that mean the same. A near twin is dropped only if its answer is one too, and only if
it is surely one: rows that may be two facts stay, and are named for a person to look at. What counts as the same is in
`twins`.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Literal

import datasets
import numpy as np

from job.config.schema import DedupeSection
from job.data.dedupe import casing, contrast, signs, twins
from job.data.dedupe.minhash import hashed
from job.data.dedupe.repeats import Repeats
from job.data.rows import BATCH
from job.errors import DataError
from job.run.row_facts import Cluster, Conflict, Doubtful, GivenAnswer, KeptRow, Rejection, Repeat, Row

_READ = ("id", "where", "question", "answer")
WITH_ANOTHER_ANSWER = ", with another answer"
"""The end of the reason of a row whose question is there, but not its answer."""
_SHOWN = 20
"""Clusters, victims of each, conflicts and doubtful pairs that are handed on for the report."""
_SURVIVORS = 16
"""Of a family with more survivors than this the first are compared with each row."""


def dedupe(
    section: DedupeSection,
    rows: datasets.Dataset,
    test: datasets.Dataset | None = None,
    keep_together: Literal["near_twins", "answers", "off"] = "near_twins",
) -> tuple[datasets.Dataset, datasets.Dataset | None, list[Rejection], Repeats]:
    """Drop rows that repeat another.

    Args:
        rows: {"question", "answer", "where"} and more.
        test: test rows given apart; a training row that repeats one of them would leak and is dropped, whatever
            `conflicts` says.
        keep_together: the config's, which says what makes a family.

    Returns:
        The rows and the test rows kept; the rejected ones, each naming the row it repeats; and what was found.

    Raises:
        DataError: `conflicts` is fail, and there is one.
    """
    everything = rows if test is None else datasets.concatenate_datasets([test, rows])
    tested = 0 if test is None else len(test)
    texts = [name for name in ("id", "where", "question", "answer") if name in everything.column_names]
    search = _Dedupe(section, everything.select_columns(texts), tested)  # not the ids of the tokens
    search.exact()
    search.near(keep_together == "answers")
    if section.semantic_model is not None:
        search.semantic(section.semantic_model)
    kept = np.flatnonzero(search.alive)
    found = Repeats(
        families=np.arange(len(kept)) if keep_together == "off" else search.families[kept],
        apart=search.told_apart(),
        doubtful=search.told_doubtful(),
        clusters=search.clusters(),
        conflicts=search.conflicts,
    )
    kept_test = None if test is None else test.select(kept[kept < tested])
    return rows.select(kept[kept >= tested] - tested), kept_test, search.rejected(), found


class _Dedupe:
    """Which rows are alive, and which row each of the others repeats."""

    def __init__(self, section: DedupeSection, rows: datasets.Dataset, tested: int) -> None:
        self.section, self.tested = section, tested
        # the other columns, such as token ids, are not read
        self.rows = rows.select_columns([name for name in _READ if name in rows.column_names])
        self.spelled = twins.spelled(rows)
        self.alive = np.ones(len(rows), bool)
        self.families = np.arange(len(rows))
        self.apart: twins.Pairs = []
        self.doubtful: twins.Pairs = []
        self.victims: dict[int, tuple[int, float, str]] = {}
        self.conflicts: list[Conflict] = []

    def exact(self) -> None:
        """Rows with the same question, once normalised."""
        same = sorted(self._same_questions())
        self.families = twins.joined(self.families, ((group[0], other) for group in same for other in group[1:]))
        if self.section.exact:
            for start in range(0, len(same), BATCH):
                self._repeats(same[start : start + BATCH])

    def _same_questions(self) -> Iterator[list[int]]:
        """The positions of each question that is there more than once, by way of 8 bytes a question."""
        spelled = self.spelled.select_columns("question")
        hashes = np.empty(len(spelled), np.uint64)
        for start in range(0, len(spelled), BATCH):
            hashes[start : start + BATCH] = hashed(spelled[start : start + BATCH]["question"])
        same = list(_members(hashes))
        for start in range(0, len(same), BATCH):
            groups = same[start : start + BATCH]
            questions = iter(spelled[np.concatenate(groups)]["question"])
            for positions in groups:
                asked = defaultdict(list)  # two questions may have one hash
                for position in positions.tolist():
                    asked[next(questions)].append(position)
                yield from (group for group in asked.values() if len(group) > 1)

    def _repeats(self, groups: list[list[int]]) -> None:
        positions = sorted(position for group in groups for position in group)
        answers = dict(zip(positions, self.spelled[positions]["answer"], strict=True))
        questions = dict(zip(positions, self.spelled[positions]["asked"], strict=True))
        for group in groups:
            for same in self._of_one_wording(group, questions, answers):
                self._repeat(same, answers)

    def _of_one_wording(self, group: list[int], questions: dict[int, str], answers: dict[int, str]) -> list[list[int]]:
        """The rows of a group apart where capitals make them other questions (Polish and polish, Masse and Maße), and
        where signs may have (max-height and max_height), which the answers tell."""
        different = len({answers[position] for position in group}) > 1
        wordings: dict[str, list[int]] = {}
        for position in group:
            wordings.setdefault(questions[position], []).append(position)
        found: list[tuple[str, list[int], set[str]]] = []
        for asked, rows in wordings.items():
            told = {answers[row] for row in rows}
            for before, same, known in found[:_SURVIVORS]:
                if (
                    not casing.other_words(before, asked)
                    and not (different and casing.other_names(before, asked))
                    and not (known.isdisjoint(told) and signs.other_signs(before, asked))
                ):
                    same += rows
                    known |= told
                    break
            else:
                found.append((asked, rows, told))
        self.doubtful += [(found[0][1][0], rows[0], 1.0) for _, rows, _ in found[1:]]
        return [sorted(rows) for _, rows, _ in found]

    def _repeat(self, group: list[int], answers: dict[int, str]) -> None:
        kept = self._survivors(group, answers)
        if len({answers[position] for position in group}) > 1:
            self._conflict(group, kept)
        survivors = set(kept.values())
        for position in group:
            if position not in survivors:
                survivor = kept.get(answers[position], next(iter(kept.values())))
                other = "" if answers[survivor] == answers[position] else WITH_ANOTHER_ANSWER
                self._drop(position, survivor, 1.0, f"asks the same as {{}}{other}")

    def _survivors(self, group: list[int], answers: dict[int, str]) -> dict[str, int]:
        """Of rows with one question those that stay, by their answers."""
        first: dict[str, int] = {}
        for position in group:
            first.setdefault(answers[position], position)
        tested = {answer: position for answer, position in first.items() if position < self.tested}
        candidates = tested or first
        if self.section.conflicts == "keep_all":
            return candidates
        longest = self.section.conflicts == "keep_longest"
        best = max(candidates, key=len) if longest else next(iter(candidates))
        return {best: candidates[best]}

    def _conflict(self, group: list[int], kept: dict[str, int]) -> None:
        if self.section.conflicts != "fail" and len(self.conflicts) >= _SHOWN:
            return
        found = self.rows[group]
        answers = list(map(GivenAnswer, found["where"], found["answer"]))
        if self.section.conflicts == "fail":
            raise DataError(
                f"{found['where'][0]} and {found['where'][1]} ask the same, {found['question'][0]!r}, and answer "
                "differently; correct one of them, or set dedupe.conflicts to keep_first, keep_longest or keep_all"
            )
        stays = "all" if len(kept) > 1 else self.rows[next(iter(kept.values()))]["where"]
        self.conflicts.append(Conflict(found["question"][0], answers[:_SHOWN], stays))

    def near(self, answers: bool) -> None:
        """Families of the rows that are left; of near twins, what repeats an earlier row is dropped."""
        left = np.flatnonzero(self.alive)
        rows = self.spelled.select(left)
        kin = twins.find(rows, self.section.threshold, answers)
        for pairs, found in ((self.apart, kin.apart + kin.doubtful), (self.doubtful, kin.doubtful)):
            pairs += [(int(left[one]), int(left[other]), similarity) for one, other, similarity in found]
        joins = [(int(left[family]), int(left[row])) for row, family in enumerate(kin.families.tolist())]
        if answers:
            joins += self._of_one_answer(left)
        self.families = twins.joined(self.families, ((one, other) for one, other in joins if one != other))
        if self.section.near:
            for family in _members(kin.twins):
                self._near_within(left[family].tolist(), kin.judge)

    def _of_one_answer(self, left: np.ndarray) -> list[tuple[int, int]]:
        """Rows with the same long answer, each with the first that has it."""
        answers = self.spelled.select(left)
        first: dict[str, int] = {}
        return [
            (first.setdefault(answer, int(left[start + number])), int(left[start + number]))
            for start in range(0, len(answers), BATCH)
            for number, answer in enumerate(answers[start : start + BATCH]["answer"])
            if len(answer) >= twins.LONG_ANSWER
        ]

    def _near_within(self, family: list[int], judge: twins.Judge) -> None:
        columns = self.spelled[family]
        texts = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        grams = twins.sets(columns["question"], columns["answer"])
        kept: list[int] = []
        for row in range(len(family)):
            for before in kept[:_SURVIVORS]:
                similarity = twins.overlap(grams[before], grams[row])
                if similarity >= self.section.threshold and judge.verdict(texts[before], texts[row]) == "twins":
                    self._drop(
                        family[row], family[before], similarity, f"nearly repeats {{}} (similarity {similarity:.2f})"
                    )
                    break
            else:
                kept.append(row)

    def semantic(self, model: str) -> None:
        """Rows whose question and answer mean the same as an earlier row's, to the model.

        A model hardly sees a number or a "not": rows that differ in one stay, and are named for a person to look at.
        """
        from job.data.dedupe import semantic  # brings torch, which nothing else of the data needs

        left = np.flatnonzero(self.alive)
        rows = self.rows.select(left)
        for before, row, similarity in semantic.repeats(model, rows, self.section.semantic_threshold):
            one, other = rows[before], rows[row]
            if any(contrast.differ(one[name], other[name]) for name in ("question", "answer")):
                self.doubtful.append((int(left[before]), int(left[row]), similarity))
                continue
            self._drop(
                int(left[row]), int(left[before]), similarity, f"means the same as {{}} (cosine {similarity:.2f})"
            )

    def _drop(self, row: int, survivor: int, similarity: float, reason: str) -> None:
        self.alive[row] = False
        self.victims[row] = (survivor, similarity, reason)

    def told_apart(self) -> list[tuple[str, str, float]]:
        left = [pair for pair in self.apart if self.alive[pair[0]] and self.alive[pair[1]]]
        positions = sorted({position for one, other, _ in left for position in (one, other)})
        where = dict(zip(positions, self.rows[positions]["where"], strict=True)) if positions else {}
        return [(where[one], where[other], similarity) for one, other, similarity in left]

    def told_doubtful(self) -> list[Doubtful]:
        """Pairs of kept rows that may be near twins, those first that are no template's."""
        left = [pair for pair in self.doubtful if self.alive[pair[0]] and self.alive[pair[1]]]
        left.sort(key=lambda pair: (self.families[pair[0]] != self.families[pair[1]], -pair[2], pair))
        shown = left[:_SHOWN]
        return [Doubtful(round(similarity, 3), [self._row(one), self._row(other)]) for one, other, similarity in shown]

    def rejected(self) -> list[Rejection]:
        """The victims, test rows first, in the order in which they stood."""
        return [row for start in range(0, len(self.victims), BATCH) for row in self._rejected(start)]

    def _rejected(self, start: int) -> Iterator[Rejection]:
        victims = sorted(self.victims)[start : start + BATCH]
        reasons = [self.victims[row] for row in victims]
        survivors = self.rows[[survivor for survivor, _, _ in reasons]]["where"]
        rows = self.rows[victims]
        for number, (_, _, reason) in enumerate(reasons):
            id_ = rows["id"][number] if "id" in rows else None
            yield Rejection(rows["where"][number], "dedupe", reason.format(survivors[number]), id_)

    def clusters(self) -> list[Cluster]:
        """Survivors with what repeats them, the largest first."""
        repeated: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for row, (survivor, similarity, _) in sorted(self.victims.items()):
            repeated[survivor].append((row, similarity))
        largest = sorted(repeated, key=lambda survivor: (-len(repeated[survivor]), survivor))[:_SHOWN]
        return [
            Cluster(
                KeptRow(*self._place(survivor)),
                [Repeat(*self._place(row), round(similarity, 3)) for row, similarity in repeated[survivor][:_SHOWN]],
                size=len(repeated[survivor]),
            )
            for survivor in largest
        ]

    def _place(self, row: int) -> tuple[str, str]:
        found = self.rows[row]
        return found["where"], found["question"]

    def _row(self, row: int) -> Row:
        return Row(*self._place(row), self.rows[row]["answer"])


def _members(names: np.ndarray) -> Iterator[np.ndarray]:
    """The positions, in order, of each name that is there more than once."""
    order = np.argsort(names, kind="stable")
    ordered = names[order]
    bounds = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1], [True]]))
    for several in np.flatnonzero(np.diff(bounds) > 1):
        yield order[bounds[several] : bounds[several + 1]]
