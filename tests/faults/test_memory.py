"""Memory that does not suffice: a real bound on the process, set as training begins."""

import json
import re
from pathlib import Path

import pytest
from fork_server import ForkServer
from tiny import ROWS, save_tiny
from transformers import GPT2Config, GPT2LMHeadModel

from job.errors import Exit

MIB = 2**20


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of few weights whose activations take megabytes a row."""
    config = GPT2Config(
        vocab_size=400,
        n_positions=128,
        n_embd=8,
        n_layer=1,
        n_head=1,
        n_inner=32_768,
        bos_token_id=0,
        eos_token_id=0,
    )
    return save_tiny(tmp_path_factory.mktemp("wide"), GPT2LMHeadModel(config))


def start(jobs: ForkServer, base: Path, folder: Path, batch: int, memory: int) -> tuple[int, str, Path]:
    folder.mkdir()
    (folder / "rows.json").write_text(json.dumps(ROWS))
    (folder / "config.yaml").write_text(
        f"dataset: {{file: {folder}/rows.json}}\nmodel: {{base: {base}, max_length: 64, max_new_tokens: 4}}\n"
        f"train: {{epochs: 1, batch_size: {batch}, precision: fp32}}\nevaluate: {{gate: 'off'}}\noutput: {folder}/run\n"
    )
    run = jobs.run(folder, "run", f"{folder}/config.yaml", memory_while_training=memory)
    return run.wait(), run.text(), folder / "run"


def test_halving_the_batch_keeps_the_effective_batch(jobs: ForkServer, wide: Path, tmp_path: Path) -> None:
    code, text, run = start(jobs, wide, tmp_path / "halved", 32, 200 * MIB)
    assert code == Exit.DONE, text
    halved = re.search(r"out of memory: 32 -> 16 rows in a forward pass and 1 -> 2 passes in a step", text)
    assert halved and "the effective batch of 32 rows stays the same" in text, text
    training = json.loads((run / "training.json").read_text())
    assert training["rows_per_step"] == 32
    assert training["forward_rows"] < 32
    card = (run / "model/README.md").read_text()
    assert f"Memory allowed only {training['forward_rows']} rows in a forward pass" in card
