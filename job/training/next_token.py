"""Next token: the objective of a generator, cross entropy of each answer token given all tokens before it.

It knows causal language models, ids and labels. It does not know optimizers, epochs or checkpoints.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import datasets
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from job.config.schema import TrainSection
from job.model import ground
from job.model.layers import exchange
from job.model.loss import choose
from job.run import out_of_memory
from job.run.machine import Machine
from job.training.batches import Rows, micro_batches
from job.training.gradients import AllProcesses, Gradients, OneProcess
from job.training.word_dropout import WordDropout


class NextToken:
    """A causal language model in training; see `Objective`."""

    def __init__(self, section: TrainSection, source: datasets.Dataset, base: Path, machine: Machine) -> None:
        """Load the model, and compare the fast loss with the plain one on two rows.

        Args:
            section: the config's.
            source: the training rows, {"input_ids", "labels"}.
            base: the folder of the model to train.
            machine: what to compute with.
        """
        self.machine, self.base = machine, base
        self.model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        self.model.to(machine.device).train()  # type: ignore[arg-type]
        exchange(self.model, machine.device)
        # without it, autocast leaves attention with dropout, for which a CPU has no fused kernel, in fp32
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # for every device, in spite of its name
        self.pad_id = int(self.model.generation_config.pad_token_id)
        self.rows = Rows(source, self.pad_id)
        alone = machine.processes == 1
        in_place = alone and machine.device.type == "cpu"
        self.loss = choose(self.model, *self.rows.batch(self._probe(), machine.device), in_place)
        self.gradients: Gradients = OneProcess(self.loss) if alone else AllProcesses(self.loss)
        self.answer_only = self.loss.answer_only
        self._words: WordDropout | None = None
        if section.word_dropout:
            self._words = WordDropout(self.rows, AutoTokenizer.from_pretrained(base), section.word_dropout)
        self.choices = int(self.model.config.get_text_config().vocab_size)

    def accumulate(self, rows: list[int], size: int, scale: float, seed: tuple[int, int]) -> torch.Tensor | None:
        """As in `Objective`."""
        torch.manual_seed(hash((*seed, self.machine.rank)))
        losses: list[torch.Tensor] = []
        prompt = None if self._words is None else partial(self._words.prompt, seed=seed)
        parts = micro_batches(rows, size, self.machine.rank, self.machine.processes)
        for number, part in enumerate(parts, 1):
            with self.machine.autocast():
                batch = self.rows.batch(part, self.machine.device, prompt)
                losses.append(self.gradients.add(batch, scale, last=number == len(parts)))
        if not parts:
            self.gradients.add_nothing()
        return sum(losses, torch.zeros((), device=self.machine.device))

    def abandon(self) -> None:
        """As in `Objective`."""
        self.gradients.abandon()

    def close(self) -> None:
        """As in `Objective`."""
        self.gradients.close()

    def load_test(self, rows: datasets.Dataset) -> None:
        """As in `Objective`."""
        self.test_rows = Rows(rows, self.pad_id)

    @torch.no_grad()
    def test(self, size: int, stop_requested: Callable[[], bool]) -> torch.Tensor:
        """As in `Objective`."""
        self.model.eval()
        sums = torch.zeros(3, dtype=self.machine.sum_dtype, device=self.machine.device)
        everything = sorted(range(len(self.test_rows)), key=self.test_rows.lengths.__getitem__)
        for part in micro_batches(everything, size, self.machine.rank, self.machine.processes):
            if stop_requested():
                sums[2] = 1
                break
            halves = out_of_memory.in_halves(
                part, lambda rows: [self._measure(rows)], "test loss", self.machine.free_cache
            )
            for half in halves:
                sums[:2] += half
        self.model.train()
        return sums

    def save(self, folder: Path) -> None:
        """As in `Objective`."""
        stored: str = json.loads((self.base / "config.json").read_text()).get("dtype") or "float32"
        self.model.to(getattr(torch, stored)).save_pretrained(folder)
        AutoTokenizer.from_pretrained(self.base, padding_side="left").save_pretrained(folder)
        ground.copy(self.base, folder)

    def _measure(self, part: list[int]) -> torch.Tensor:
        """Measure loss and trained tokens of test rows: [2]."""
        with self.machine.autocast():
            loss = self.loss.measure(*self.test_rows.batch(part, self.machine.device))
        return torch.stack([loss.total.to(self.machine.sum_dtype), loss.tokens.to(self.machine.sum_dtype)])

    def _probe(self) -> list[int]:
        """Choose two rows for the comparison of the losses: of different length, so that one of them is padded."""
        order = sorted(range(len(self.rows)), key=self.rows.lengths.__getitem__)
        return list({order[0], order[len(order) // 2]})
