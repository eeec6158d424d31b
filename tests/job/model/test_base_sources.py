"""Where a base comes from: a Hub that is gated or not there, a cache, too little memory, a checkpoint."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from checkout import ROOT
from command_line import job
from hostile import config, edit, refused, section, t5
from hub_server import HubServer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from job import pipeline
from job.config.schema import Config
from job.data.prompt import prompt_ids
from job.errors import Exit, Interrupted
from job.model import base
from job.run import interrupt

# --- the Hub ---------------------------------------------------------------------------------------------------------


def test_a_gated_base_says_where_to_ask(hub: HubServer, tiny_base: Path, tmp_path: Path) -> None:
    hub.add_repo("models", "ada/tiny", tiny_base)
    hub.fail("*", "/resolve/", times=50, status=403, headers={"X-Error-Code": "GatedRepo"})
    assert f"ada/tiny is gated: ask for access at {hub.url}/ada/tiny" in refused("ada/tiny", tmp_path)


def test_an_unfit_base_costs_no_download_of_its_weights(hub: HubServer, tmp_path: Path) -> None:
    t5(tmp_path / "source")
    hub.add_repo("models", "ada/t5", tmp_path / "source")
    assert "encoder-decoder" in refused("ada/t5", tmp_path)
    assert not [one for one in hub.requests if "safetensors" in str(one)]


def test_weights_of_other_libraries_are_not_downloaded(hub: HubServer, tiny_base: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_base.iterdir()}
    hub.add_repo("models", "ada/tiny", {**files, "original/consolidated.safetensors": b"x" * 99, "model.bin": b"y"})
    base.fetch(section("ada/tiny"), tmp_path / "base")
    assert not [one for one in hub.requests if "consolidated" in str(one) or "model.bin" in str(one)]


def test_offline_with_a_full_cache_no_request_is_sent(hub: HubServer, tiny_base: Path, tmp_path: Path) -> None:
    sha = hub.add_repo("models", "ada/tiny", tiny_base)
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    path = config(tmp_path, "ada/tiny")
    empty = job("check", path, HF_HUB_OFFLINE="1", **environment)
    assert empty.returncode == Exit.CONFIG, empty.stdout
    assert "HF_HUB_OFFLINE is set and ada/tiny is not in the cache" in empty.stdout.splitlines()[-1]
    online = job("check", path, **environment)
    assert online.returncode == 0, online.stdout + online.stderr
    hub.requests.clear()
    offline = job("run", path, HF_HUB_OFFLINE="1", **environment)
    assert offline.returncode == 0, offline.stdout + offline.stderr
    assert hub.requests == []
    assert json.loads((tmp_path / "run" / "base" / "base.json").read_text())["revision"] == sha


def test_a_folder_has_no_revisions(tiny_base: Path, tmp_path: Path) -> None:
    assert "is a folder, which has no revisions" in refused(tiny_base, tmp_path, revision="v1")


# --- memory ---


def hollow(folder: Path, tiny: Path) -> Path:
    """A base of 1 GiB in bf16 whose weights are all zero and take no place on the disk."""
    shutil.copytree(tiny, folder)
    edit(folder / "config.json", hidden_size=2048, intermediate_size=43_000, head_dim=512, dtype="bfloat16")
    with torch.device("meta"):
        weights = LlamaForCausalLM(LlamaConfig.from_pretrained(folder)).state_dict()
    header, size = {"__metadata__": {"format": "pt"}}, 0
    for name, weight in weights.items():
        if name != "lm_head.weight":  # tied
            ends = [size, size := size + 2 * weight.numel()]
            header[name] = {"dtype": "BF16", "shape": list(weight.shape), "data_offsets": ends}  # type: ignore[dict-item]
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + size)
    return folder


LIMITED = """
import resource, sys
import job.pipeline, transformers.models.llama.modeling_llama
from pathlib import Path
from job.__main__ import app
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]) * 2**20,) * 2)
app(["run", sys.argv[2]])
"""


@pytest.mark.parametrize("mib", [700, 1800], ids=["the file", "its weights in fp32"])
def test_a_base_that_does_not_fit_into_memory(mib: int, tiny_llama: Path, tmp_path: Path) -> None:
    path = config(tmp_path, hollow(tmp_path / "hollow", tiny_llama))
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(mib), str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == Exit.MEMORY, ended.stdout + ended.stderr
    assert f"out of memory while loading {tmp_path}/hollow; use a smaller model.base" in ended.stdout.splitlines()[-1]


# --- going on from a checkpoint --------------------------------------------------------------------------------------


@pytest.fixture
def earlier(tiny_base: Path, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run that was stopped after its first step."""
    values = {
        "dataset": {"file": str(data_file)},
        "model": {"base": str(tiny_base), "max_length": 64, "max_new_tokens": 12},
        "train": {"epochs": 1, "precision": "fp32"},
        "publish": {"folder": str(tmp_path / "published")},
        "output": str(tmp_path / "first"),
    }
    with monkeypatch.context() as stopped, pytest.raises(Interrupted):
        stopped.setattr(interrupt, "defer", lambda: nullcontext(lambda: True))
        pipeline.run(Config.model_validate(values))
    (checkpoint,) = (tmp_path / "first" / "checkpoints").glob("step-*")
    return checkpoint


def test_a_checkpoint_is_a_base_for_a_new_run(earlier: Path, tiny_base: Path, tmp_path: Path) -> None:
    trained = torch.load(earlier / "tensors.pt")["model"]
    facts = base.fetch(section(earlier, max_new_tokens=7, gguf_file="of-the-old-base.gguf"), tmp_path / "base")
    assert (facts.base, facts.revision, facts.checkpoint) == (str(tiny_base), None, str(earlier))
    assert facts.chat_template == "Kickoff's"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert all(torch.equal(weight, trained[name]) for name, weight in model.state_dict().items())
    untrained = AutoModelForCausalLM.from_pretrained(tiny_base).state_dict()
    assert not torch.equal(untrained["transformer.wte.weight"], trained["transformer.wte.weight"])
    assert model.generation_config.max_new_tokens == 7
    ids = [
        prompt_ids(["Why?"], AutoTokenizer.from_pretrained(path))
        for path in (earlier.parents[1] / "base", tmp_path / "base")
    ]
    assert ids[0] == ids[1]


def test_a_checkpoint_is_a_base_on_the_command_line(earlier: Path, tmp_path: Path) -> None:
    ended = job("run", config(tmp_path, "distilbert/distilgpt2"), f"model.base={earlier}", f"output={tmp_path}/second")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_checkpoint_that_is_damaged_or_alone(earlier: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(earlier, tmp_path / "alone" / "checkpoints" / earlier.name))
    assert "is a checkpoint of Kickoff without its run" in refused(alone, tmp_path)
    assert f"is a run folder of Kickoff; use {tmp_path}/first/model" in refused(tmp_path / "first", tmp_path)
    with (earlier / "tensors.pt").open("r+b") as file:
        file.write(b"damaged")
    assert "is incomplete or damaged; use an older one" in refused(earlier, tmp_path)
    (tmp_path / "first/base/base.json").write_text("{")
    assert "first/base/base.json is damaged (" in refused(earlier, tmp_path)
