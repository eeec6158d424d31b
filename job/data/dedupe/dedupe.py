"""Dedupe: keeps one of the rows that say the same.

It knows rows with the same question up to case, punctuation and blanks; near twins (misspelt, or in another word
order); and, if the config names a model, rows with the same meaning. A near twin is dropped only if it surely says the
same: rows that may be two facts stay, and are reported. It does not know how to recognise near twins; `twins` does.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Literal

import datasets
import numpy as np

from job.config.schema import DedupeSection
from job.data.dedupe import casing, contrast, signs, twins
from job.data.dedupe.families import groups_of_equal, merge_families
from job.data.dedupe.minhash import hash_texts
from job.data.dedupe.repeats import Repeats
from job.data.rows import BATCH
from job.errors import DataError
from job.run.row_facts import Cluster, Conflict, Doubtful, GivenAnswer, KeptRow, Rejection, Repeat, Row

_COLUMNS = ("id", "where", "question", "answer")
WITH_ANOTHER_ANSWER = ", with another answer"
"""How the reason ends for a row whose question is kept with another answer."""
_MAX_SHOWN = 20
"""Clusters, dropped rows of each, conflicts and doubtful pairs in the report."""
_MAX_SURVIVORS = 16
"""A row is compared with at most so many kept rows of its family, the first ones."""


def dedupe(
    section: DedupeSection,
    rows: datasets.Dataset,
    test: datasets.Dataset | None = None,
    keep_together: Literal["near_twins", "answers", "off"] = "near_twins",
) -> tuple[datasets.Dataset, datasets.Dataset | None, list[Rejection], Repeats]:
    """Drop rows that repeat another.

    Args:
        section: the config's section dedupe.
        rows: {"question", "answer", "where"} and more.
        test: separate test rows. A training row that repeats one of them would leak it, so it is dropped, whatever
            `conflicts` says.
        keep_together: the config's split.keep_together, which defines a family.

    Returns:
        The rows kept; the test rows kept, or None; the rejected rows, each with the row it repeats; and what else was
        found.

    Raises:
        DataError: `conflicts` is fail, and there is a conflict.
    """
    all_rows = rows if test is None else datasets.concatenate_datasets([test, rows])
    test_count = 0 if test is None else len(test)
    search = _Search(section, all_rows, test_count)
    search.drop_exact()
    search.drop_near(keep_together == "answers")
    if section.semantic_model is not None:
        search.drop_semantic(section.semantic_model)
    kept = np.flatnonzero(search.alive)
    repeats = Repeats(
        families=np.arange(len(kept)) if keep_together == "off" else search.families[kept],
        apart=search.similar_pairs(),
        doubtful=search.doubtful_pairs(),
        clusters=search.clusters(),
        conflicts=search.conflicts,
    )
    kept_test = None if test is None else test.select(kept[kept < test_count])
    return rows.select(kept[kept >= test_count] - test_count), kept_test, search.rejected(), repeats


class _Search:
    """The search for repeats: which rows are alive, and which row each dropped row repeats."""

    def __init__(self, section: DedupeSection, rows: datasets.Dataset, test_count: int) -> None:
        self.section, self.test_count = section, test_count
        # the other columns, such as token ids, are not read
        self.rows = rows.select_columns([name for name in _COLUMNS if name in rows.column_names])
        self.texts = twins.normalise_rows(rows)
        self.alive = np.ones(len(rows), bool)
        self.families = np.arange(len(rows))
        self.apart: twins.Pairs = []
        self.doubtful: twins.Pairs = []
        self.victims: dict[int, tuple[int, float, str]] = {}
        self.conflicts: list[Conflict] = []

    def drop_exact(self) -> None:
        """Drop rows whose normalised question is that of another row."""
        same = sorted(self._same_questions())
        self.families = merge_families(self.families, ((group[0], other) for group in same for other in group[1:]))
        if self.section.exact:
            for start in range(0, len(same), BATCH):
                self._drop_exact_repeats(same[start : start + BATCH])

    def _same_questions(self) -> Iterator[list[int]]:
        """The positions of each repeated question, found by 8 bytes of hash per question."""
        normalised = self.texts.select_columns("question")
        hashes = np.empty(len(normalised), np.uint64)
        for start in range(0, len(normalised), BATCH):
            hashes[start : start + BATCH] = hash_texts(normalised[start : start + BATCH]["question"])
        same = list(groups_of_equal(hashes))
        for start in range(0, len(same), BATCH):
            groups = same[start : start + BATCH]
            questions = iter(normalised[np.concatenate(groups)]["question"])
            for positions in groups:
                by_question = defaultdict(list)  # two questions may have one hash
                for position in positions.tolist():
                    by_question[next(questions)].append(position)
                yield from (group for group in by_question.values() if len(group) > 1)

    def _drop_exact_repeats(self, groups: list[list[int]]) -> None:
        positions = sorted(position for group in groups for position in group)
        answers = dict(zip(positions, self.texts[positions]["answer"], strict=True))
        questions = dict(zip(positions, self.texts[positions]["asked"], strict=True))
        for group in groups:
            for same in self._split_by_wording(group, questions, answers):
                self._keep_survivors(same, answers)

    def _split_by_wording(
        self, group: list[int], questions: dict[int, str], answers: dict[int, str]
    ) -> list[list[int]]:
        """Split a group of rows with equal normalised questions where the questions differ after all.

        Capitals make different questions (Polish and polish, Masse and Maße). Signs do if the answers differ as well
        (max-height and max_height).
        """
        different = len({answers[position] for position in group}) > 1
        wordings: dict[str, list[int]] = {}
        for position in group:
            wordings.setdefault(questions[position], []).append(position)
        subgroups: list[tuple[str, list[int], set[str]]] = []
        for question, rows in wordings.items():
            row_answers = {answers[row] for row in rows}
            for before, same, group_answers in subgroups[:_MAX_SURVIVORS]:
                if (
                    not casing.differ_in_sharp_s(before, question)
                    and not (different and casing.differ_in_names(before, question))
                    and not (group_answers.isdisjoint(row_answers) and signs.differ_in_signs(before, question))
                ):
                    same += rows
                    group_answers |= row_answers
                    break
            else:
                subgroups.append((question, rows, row_answers))
        self.doubtful += [(subgroups[0][1][0], rows[0], 1.0) for _, rows, _ in subgroups[1:]]
        return [sorted(rows) for _, rows, _ in subgroups]

    def _keep_survivors(self, group: list[int], answers: dict[int, str]) -> None:
        kept = self._survivors(group, answers)
        if len({answers[position] for position in group}) > 1:
            self._note_conflict(group, kept)
        survivors = set(kept.values())
        for position in group:
            if position not in survivors:
                survivor = kept.get(answers[position], next(iter(kept.values())))
                other = "" if answers[survivor] == answers[position] else WITH_ANOTHER_ANSWER
                self._drop(position, survivor, 1.0, f"asks the same as {{}}{other}")

    def _survivors(self, group: list[int], answers: dict[int, str]) -> dict[str, int]:
        """The rows that stay, of those with one question, by their answers."""
        first: dict[str, int] = {}
        for position in group:
            first.setdefault(answers[position], position)
        in_test = {answer: position for answer, position in first.items() if position < self.test_count}
        candidates = in_test or first
        if self.section.conflicts == "keep_all":
            return candidates
        longest = self.section.conflicts == "keep_longest"
        best = max(candidates, key=len) if longest else next(iter(candidates))
        return {best: candidates[best]}

    def _note_conflict(self, group: list[int], kept: dict[str, int]) -> None:
        if self.section.conflicts != "fail" and len(self.conflicts) >= _MAX_SHOWN:
            return
        columns = self.rows[group]
        answers = list(map(GivenAnswer, columns["where"], columns["answer"]))
        if self.section.conflicts == "fail":
            raise DataError(
                f"{columns['where'][0]} and {columns['where'][1]} ask the same, {columns['question'][0]!r}, and answer "
                "differently; correct one of them, or set dedupe.conflicts to keep_first, keep_longest or keep_all"
            )
        kept_where = "all" if len(kept) > 1 else self.rows[next(iter(kept.values()))]["where"]
        self.conflicts.append(Conflict(columns["question"][0], answers[:_MAX_SHOWN], kept_where))

    def drop_near(self, answers: bool) -> None:
        """Find the families of the remaining rows, by long `answers` too, and drop near twins of earlier rows."""
        live = np.flatnonzero(self.alive)
        rows = self.texts.select(live)
        families = twins.find_families(rows, self.section.threshold, answers)
        for pairs, listed in ((self.apart, families.apart + families.doubtful), (self.doubtful, families.doubtful)):
            pairs += [(int(live[one]), int(live[other]), similarity) for one, other, similarity in listed]
        joins = [(int(live[family]), int(live[row])) for row, family in enumerate(families.families.tolist())]
        if answers:
            joins += self._pairs_of_equal_answers(live)
        self.families = merge_families(self.families, ((one, other) for one, other in joins if one != other))
        if self.section.near:
            for family in groups_of_equal(families.twins):
                self._drop_near_twins(live[family].tolist(), families.judge)

    def _pairs_of_equal_answers(self, live: np.ndarray) -> list[tuple[int, int]]:
        """Pairs of rows with the same long answer: the first row that has it, and each row."""
        answers = self.texts.select(live)
        first: dict[str, int] = {}
        return [
            (first.setdefault(answer, int(live[start + number])), int(live[start + number]))
            for start in range(0, len(answers), BATCH)
            for number, answer in enumerate(answers[start : start + BATCH]["answer"])
            if len(answer) >= twins.LONG_ANSWER
        ]

    def _drop_near_twins(self, family: list[int], judge: twins.Judge) -> None:
        columns = self.texts[family]
        texts = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        grams = twins.trigram_sets(columns["question"], columns["answer"])
        kept: list[int] = []
        for row in range(len(family)):
            for before in kept[:_MAX_SURVIVORS]:
                similarity = twins.jaccard(grams[before], grams[row])
                if similarity >= self.section.threshold and judge.verdict(texts[before], texts[row]) == "twins":
                    reason = f"nearly repeats {{}} (similarity {similarity:.2f})"
                    self._drop(family[row], family[before], similarity, reason)
                    break
            else:
                kept.append(row)

    def drop_semantic(self, model: str) -> None:
        """Drop rows whose question and answer mean the same as an earlier row's, by an embedding model.

        Embeddings hardly show a number or a "not": rows that differ in one stay, and are reported as doubtful.
        """
        from job.data.dedupe import semantic  # brings torch, which nothing else of the data needs

        live = np.flatnonzero(self.alive)
        rows = self.rows.select(live)
        for before, row, similarity in semantic.find_repeats(model, rows, self.section.semantic_threshold):
            one, other = rows[before], rows[row]
            if any(contrast.differ(one[name], other[name]) for name in ("question", "answer")):
                self.doubtful.append((int(live[before]), int(live[row]), similarity))
                continue
            reason = f"means the same as {{}} (cosine {similarity:.2f})"
            self._drop(int(live[row]), int(live[before]), similarity, reason)

    def _drop(self, row: int, survivor: int, similarity: float, reason: str) -> None:
        self.alive[row] = False
        self.victims[row] = (survivor, similarity, reason)

    def similar_pairs(self) -> list[tuple[str, str, float]]:
        """Pairs of kept rows that are similar and not near twins: both positions and the similarity."""
        pairs = [pair for pair in self.apart if self.alive[pair[0]] and self.alive[pair[1]]]
        positions = sorted({position for one, other, _ in pairs for position in (one, other)})
        where = dict(zip(positions, self.rows[positions]["where"], strict=True)) if positions else {}
        return [(where[one], where[other], similarity) for one, other, similarity in pairs]

    def doubtful_pairs(self) -> list[Doubtful]:
        """Pairs of kept rows that may be near twins; those that do not come from a template first."""
        pairs = [pair for pair in self.doubtful if self.alive[pair[0]] and self.alive[pair[1]]]
        pairs.sort(key=lambda pair: (self.families[pair[0]] != self.families[pair[1]], -pair[2], pair))
        shown = pairs[:_MAX_SHOWN]
        return [Doubtful(round(similarity, 3), [self._row(one), self._row(other)]) for one, other, similarity in shown]

    def rejected(self) -> list[Rejection]:
        """The dropped rows, test rows first, in their order."""
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
        """Rows that were kept with those that repeat them, the largest cluster first."""
        repeated: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for row, (survivor, similarity, _) in sorted(self.victims.items()):
            repeated[survivor].append((row, similarity))
        largest = sorted(repeated.items(), key=lambda cluster: (-len(cluster[1]), cluster[0]))[:_MAX_SHOWN]
        return [
            Cluster(
                KeptRow(*self._identify(survivor)),
                [Repeat(*self._identify(row), round(similarity, 3)) for row, similarity in victims[:_MAX_SHOWN]],
                size=len(victims),
            )
            for survivor, victims in largest
        ]

    def _identify(self, row: int) -> tuple[str, str]:
        columns = self.rows[row]
        return columns["where"], columns["question"]

    def _row(self, row: int) -> Row:
        return Row(*self._identify(row), self.rows[row]["answer"])
