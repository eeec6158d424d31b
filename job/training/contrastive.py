"""Contrastive: the objective of a retriever, to tell a question's own answer from the other answers of the step.

For each row of a step, the question's vector is compared with the vectors of all answers and of all questions of the
step, by cosine; the loss is the cross entropy of the own answer among the answers, and of a question with the same
answer among the questions (InfoNCE; van den Oord et al. 2018, MultipleNegativesRankingLoss in sentence-transformers).
Other rows with the same answer are no wrong choices, so they are left out. The questions of a file are few, and users
ask in other words, so the question that asks has lost some of its tokens at random, and an answer that has lost half of
its own asks for the whole one, since other wordings often take words from the answer.

The vectors of a whole step are needed at once, and their graphs would not fit into memory. So vectors are computed
without a graph first, then the loss's gradients with regard to them, and then each forward pass again with its part of
those (GradCache; Gao et al. 2021). That makes the loss that of all rows of a step, over all forward passes and all
processes.

It knows encoders and vectors. It does not know optimizers, epochs or checkpoints.
"""

import json
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from job.config.schema import RetrieverSection, TrainSection
from job.data.pairs import read_prompts
from job.model.encoder import load_encoder
from job.model.loss import backward
from job.run import out_of_memory
from job.run.machine import Machine
from job.training.batches import pad
from job.training.geometry import rows_per_step
from job.training.pairs import Pairs

TEMPERATURE = 0.05
"""By which cosines are divided; sentence-transformers' default (scale 20)."""
_FEWEST_TOKENS = 3
"""Of a question that loses tokens, so that something is left to ask."""
_TEXTS = 4
"""Texts of a row: a question and a half answer that ask, and the answer and a question that are asked for."""
_ANSWER_DROPOUT = 0.5
"""Share of an answer's tokens that are left out where it asks."""
_BLOCK = 1024
"""Test rows that are compared with each other."""


class Contrastive:
    """An encoder in training; see `Objective`."""

    answer_only = False

    def __init__(
        self, section: TrainSection, source: datasets.Dataset, base: Path, machine: Machine, retriever: RetrieverSection
    ) -> None:
        """Load the encoder.

        Args:
            section: the config's; the rows of a step are each other's wrong answers.
            source: the training rows, {"input_ids", "labels", "answer"}.
            base: the folder of the encoder to train.
            machine: what to compute with.
            retriever: the config's section.
        """
        self.machine, self.base, self.retriever = machine, base, retriever
        self.model = load_encoder(base, machine.device).train()
        self.rows = Pairs(source)
        self.choices = rows_per_step(section, machine.processes)
        self._tokenizer = AutoTokenizer.from_pretrained(base)
        self._pad_id = int(self._tokenizer.pad_token_id or 0)
        prompts = read_prompts(retriever, base)
        self._kept = {name: _count_kept(self._tokenizer, prompt) for name, prompt in vars(prompts).items()}
        self._width = int(self.model.get_embedding_dimension() or 0)
        self._test_pairs: Pairs | None = None

    def accumulate(self, rows: list[int], size: int, scale: float, seed: tuple[int, int]) -> torch.Tensor | None:
        """As in `Objective`."""
        texts = self._texts(rows, seed)
        mine = [number for number in range(len(texts)) if self._is_mine(number % len(rows))]
        parts = _parts(texts, mine, _TEXTS * size)
        failure, vectors = None, torch.zeros(len(texts), self._width, device=self.machine.device)
        try:
            graph = self._encode_all(texts, parts, seed, vectors)
        except Exception as error:
            failure = error
        if self._has_failed(failure):
            return None
        self.machine.sum(vectors)
        vectors.requires_grad_()
        try:
            losses = self._losses(vectors, self.rows.answer_ids[rows])
            backward(losses.sum() * scale)
            self._backward(texts, parts, seed, vectors, graph)
        except Exception as error:
            failure = error
        if self._has_failed(failure):
            return None
        self._share_gradients()
        own = [number for number in range(len(rows)) if self._is_mine(number)]
        return losses.detach()[own].sum()

    def abandon(self) -> None:
        """As in `Objective`; all processes learn of a failure within the step itself."""

    def close(self) -> None:
        """As in `Objective`."""

    def load_test(self, rows: datasets.Dataset) -> None:
        """As in `Objective`."""
        self._test_pairs = Pairs(rows)

    @torch.no_grad()
    def test(self, size: int, stop_requested: Callable[[], bool]) -> torch.Tensor:
        """As in `Objective`: each test question among the answers of its block of test rows."""
        pairs = self._test_pairs
        assert pairs is not None  # noqa: S101 - the loop loads the test rows first
        sums = torch.zeros(3, dtype=self.machine.sum_dtype, device=self.machine.device)
        blocks = [list(range(start, min(start + _BLOCK, len(pairs)))) for start in range(0, len(pairs), _BLOCK)]
        self.model.eval()
        for block in blocks[self.machine.rank :: self.machine.processes]:
            if stop_requested():
                sums[2] = 1
                break
            texts = [pairs.questions[row] for row in block] + [pairs.answers[row] for row in block]
            vectors = torch.zeros(len(texts), self._width, device=self.machine.device)
            for part in _parts(texts, list(range(len(texts))), _TEXTS * size):
                vectors[part] = self._encode_in_halves(texts, part)
            answer_ids = pairs.answer_ids[block]
            same = torch.from_numpy(answer_ids[:, None] == answer_ids).to(vectors.device)
            sums[0] += cross_entropy(vectors[: len(block)], vectors[len(block) :], same).sum().to(sums.dtype)
            sums[1] += len(block)
        self.model.train()
        return sums

    def save(self, folder: Path) -> None:
        """As in `Objective`; each weight is the mean of base and tuned by retriever.base_share.

        An encoder that is tuned on few rows loses some of what it knew of other wordings; halfway back to the base it
        has both (WiSE-FT; Wortsman et al. 2022).
        """
        stored: str = json.loads((self.base / "config.json").read_text()).get("dtype") or "float32"
        share = self.retriever.base_share
        before = load_encoder(self.base, self.machine.device).state_dict()
        with torch.no_grad():
            for name, weight in self.model.state_dict().items():
                if weight.is_floating_point():
                    weight.lerp_(before[name].to(weight), share)
        self.model.to(getattr(torch, stored)).save(str(folder), create_model_card=False)

    def _is_mine(self, row: int) -> bool:
        """Whether this process encodes the row of that position in the step."""
        return row % self.machine.processes == self.machine.rank

    def _texts(self, rows: list[int], seed: tuple[int, int]) -> list[np.ndarray]:
        """List the token ids of a step: the texts that ask, then the answers, and questions with the same answer."""
        random = np.random.default_rng(seed)  # the same in every process
        share, kept = self.retriever.word_dropout, self._kept
        questions = [_drop(self.rows.questions[row], share, random, *kept["query"]) for row in rows]
        halves = [_drop(self.rows.answers[row], _ANSWER_DROPOUT, random, *kept["document"]) for row in rows]
        same = [self.rows.with_same_answer(row) for row in rows]
        asked = [self.rows.questions[each[random.integers(len(each))]] for each in same]
        return [*questions, *halves, *(self.rows.answers[row] for row in rows), *asked]

    def _encode_all(
        self, texts: list[np.ndarray], parts: list[list[int]], seed: tuple[int, int], vectors: torch.Tensor
    ) -> torch.Tensor | None:
        """Fill in this process's rows of `vectors`.

        Returns:
            The vectors with their graph, if one forward pass made them all, which saves the second pass.
        """
        if len(parts) == 1:
            graph = self._encode(texts, parts[0], (*seed, 0))
            vectors[parts[0]] = graph.detach()
            return graph
        with torch.no_grad():
            for number, part in enumerate(parts):
                vectors[part] = self._encode(texts, part, (*seed, number))
        return None

    def _backward(
        self,
        texts: list[np.ndarray],
        parts: list[list[int]],
        seed: tuple[int, int],
        vectors: torch.Tensor,
        graph: torch.Tensor | None,
    ) -> None:
        """Add the gradients of the weights, given those of the vectors; the dropout is that of the first pass."""
        gradients = vectors.grad
        assert gradients is not None  # noqa: S101 - the loss's backward pass has just set it
        for number, part in enumerate(parts):
            encoded = graph if graph is not None else self._encode(texts, part, (*seed, number))
            torch.autograd.backward(encoded, gradients[part])

    def _encode(self, texts: list[np.ndarray], part: list[int], seed: tuple[int, ...]) -> torch.Tensor:
        """Compute the vectors of some texts, of length 1: [texts, width] in fp32."""
        torch.manual_seed(hash((*seed, self.machine.rank)))
        chosen = [texts[number] for number in part]
        ids, _, mask = pad(chosen, chosen, self._pad_id)
        features = {"input_ids": ids.to(self.machine.device), "attention_mask": mask.to(self.machine.device)}
        with self.machine.autocast():
            vectors = self.model({**features, "modality": "text"})["sentence_embedding"]
        return F.normalize(vectors.float(), dim=-1)

    def _encode_in_halves(self, texts: list[np.ndarray], part: list[int]) -> torch.Tensor:
        halves = out_of_memory.in_halves(
            part, lambda some: [self._encode(texts, some, (0,))], "test loss", self.machine.free_cache
        )
        return torch.cat(halves)

    def _losses(self, vectors: torch.Tensor, answer_ids: np.ndarray) -> torch.Tensor:
        """Compute each row's loss: the mean of the comparisons, [rows]."""
        questions, halves, answers, asked = vectors.reshape(_TEXTS, len(answer_ids), -1)
        same = torch.from_numpy(answer_ids[:, None] == answer_ids).to(vectors.device)
        pairs = ((questions, answers), (questions, asked), (halves, answers))
        return torch.stack([cross_entropy(asking, choices, same) for asking, choices in pairs]).mean(dim=0)

    def _has_failed(self, failure: Exception | None) -> bool:
        """Raise this process's failure; tell whether another process failed: then none goes on to wait for it."""
        failed = self.machine.sum(torch.tensor(float(failure is not None), device=self.machine.device))
        if failure is not None:
            raise failure
        return bool(failed.item())

    def _share_gradients(self) -> None:
        """Sum the gradients over all processes."""
        if self.machine.processes == 1:
            return
        for weight in self.model.parameters():
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            self.machine.sum(weight.grad)


def cross_entropy(questions: torch.Tensor, choices: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Compute the cross entropy of each question's own choice among all choices.

    Args:
        questions: vectors of length 1, [rows, width].
        choices: vectors of length 1, [rows, width]; the own one has the question's number.
        same: which rows have the same answer, bool [rows, rows]; those are neither right nor wrong.

    Returns:
        Losses in nats, [rows].
    """
    scores = questions @ choices.T / TEMPERATURE
    others = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    return F.cross_entropy(
        scores.masked_fill(others, -torch.inf), torch.arange(len(scores), device=scores.device), reduction="none"
    )


def _count_kept(tokenizer: PreTrainedTokenizerBase, prompt: str) -> tuple[int, int]:
    """Count the tokens that a text never loses: prompt and special tokens before it, special tokens behind it."""
    ids: list[int] = tokenizer(prompt)["input_ids"]
    trailing = int(bool(ids) and ids[-1] in tokenizer.all_special_ids)
    return len(ids) - trailing, trailing


def _drop(ids: np.ndarray, share: float, random: np.random.Generator, leading: int, trailing: int) -> np.ndarray:
    """Leave out some tokens of a text, but none of its first `leading` and last `trailing`."""
    end = len(ids) - trailing
    kept = random.random(end - leading) >= share
    if kept.sum() < _FEWEST_TOKENS:
        return ids
    return np.concatenate([ids[:leading], ids[leading:end][kept], ids[end:]])


def _parts(texts: list[np.ndarray], mine: list[int], size: int) -> list[list[int]]:
    """Divide texts into forward passes of at most `size`, those of similar length together."""
    order = sorted(mine, key=lambda number: len(texts[number]))
    return [order[start : start + size] for start in range(0, len(order), size)]
