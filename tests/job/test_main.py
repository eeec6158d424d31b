"""The command line as a user meets it: real processes, exit codes, last lines, signals."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from checkout import ROOT
from command_line import fresh_job, job
from configs import write_config
from hub_clients import TOKEN
from hub_server import HubServer

from job.config.schema import Config
from job.errors import Exit


def test_help_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "datasets", "pandas")
    code = f"import sys, job.__main__; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
    shown = fresh_job("--help").stdout
    assert all(command in shown for command in ("run", "check", "evaluate", "publish", "schema"))


def test_schema_is_the_configs() -> None:
    assert json.loads(fresh_job("schema").stdout) == Config.model_json_schema()


def test_mistakes_in_the_config_end_with_2_before_anything_is_loaded(tmp_path: Path) -> None:
    path = write_config(tmp_path, "x", "train: {epochs: five, lerning_rate: 1}")
    done = job("run", path)
    assert done.returncode == Exit.CONFIG
    assert "did you mean train.learning_rate?" in done.stdout
    assert "found 'five', expected a whole number" in done.stdout
    assert done.stdout.startswith("error (config, exit 2)")
    assert not (tmp_path / "run").exists()


def test_data_that_is_missing_ends_with_3(tmp_path: Path, tiny_base: Path) -> None:
    path = write_config(tmp_path, tiny_base)
    (tmp_path / "rows.json").unlink()
    done = job("run", path)
    assert (done.returncode, done.stderr) == (Exit.DATA, "")
    assert "no such file" in done.stdout.splitlines()[-1]


def test_a_whole_run_and_the_published_folder_in_plain_transformers(tmp_path: Path, tiny_base: Path) -> None:
    path = write_config(tmp_path, tiny_base)
    done = fresh_job("run", path, f"publish.folder={tmp_path}/published")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (Exit.DONE, "")
    assert lines[-1] == f"done: published {tmp_path}/published; verified: the published copy gives the same answers"
    assert any("40 rows in = 34 to train + 6 to test + 0 rejected" in line for line in lines)
    code = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]); tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
chat = [{"role": "user", "content": "What is 3 plus 3?"}]
inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs)[0, inputs["input_ids"].shape[1]:]
assert len(output) <= 12 and not [name for name in sys.modules if name.split(".")[0] == "job"]
print("answer:", tokenizer.decode(output, skip_special_tokens=True))
"""
    # -P and another folder: nothing of ours can be imported by chance
    asked = subprocess.run(
        [sys.executable, "-P", "-c", code, f"{tmp_path}/published"], cwd=tmp_path, capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr
    assert "answer:" in asked.stdout


def test_sigterm_while_training_ends_with_75_and_the_next_run_goes_on(tmp_path: Path, tiny_base: Path) -> None:
    path = write_config(tmp_path, tiny_base, "train: {epochs: 400, learning_rate: 3e-4, precision: fp32}")
    process = subprocess.Popen(
        [sys.executable, "-m", "job", "run", str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while not list((tmp_path / "run" / "tensorboard").glob("*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == Exit.INTERRUPTED
    assert "checkpoint complete; run the same command again" in output.splitlines()[-1]
    assert len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) == 1
    assert not (tmp_path / "run" / "model").exists()
    refused = job("run", path, "train.epochs=2")
    assert refused.returncode == Exit.CONFIG
    assert "train.epochs was 400 and is 2" in refused.stdout


@pytest.mark.parametrize(("command", "folder"), [("run", "run"), ("run", "."), ("check", "elsewhere")])
def test_a_folder_that_must_not_be_replaced_ends_with_2_before_a_download(
    command: str, folder: str, tmp_path: Path
) -> None:
    path = write_config(tmp_path, "nobody/nothing")
    other = tmp_path / "elsewhere/checkpoints/step-00000100"
    other.mkdir(parents=True)
    (tmp_path / "elsewhere/run.yaml").write_text("seed: 7")
    done = job(command, path, f"publish.folder={tmp_path / folder}", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == Exit.CONFIG, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("error (config, exit 2): publish.folder: ")
    assert other.is_dir() and (tmp_path / "rows.json").exists()


def test_the_gate_ends_with_4(tmp_path: Path, tiny_base: Path) -> None:
    path = write_config(tmp_path, tiny_base)
    done = job(
        "run", path, "evaluate.gate=exact_match", "evaluate.gate_threshold=1", f"publish.folder={tmp_path}/there"
    )
    assert done.returncode == Exit.GATE
    assert not (tmp_path / "there").exists()


def test_a_push_that_fails_ends_with_5_without_showing_the_token(
    hub: HubServer, tmp_path: Path, tiny_base: Path
) -> None:
    path = write_config(tmp_path, tiny_base)
    hub.fail("POST", r"/commit/", times=99, status=500)
    hub_environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    done = job("run", path, "publish.repo=ada/sums", HF_TOKEN=TOKEN, **hub_environment)
    assert done.returncode == Exit.PUBLISH
    assert "python -m job publish" in done.stdout.splitlines()[-1]
    assert TOKEN not in done.stdout + done.stderr


def test_the_reason_is_in_the_termination_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from job import __main__ as main

    note = tmp_path / "termination-log"
    note.touch()
    monkeypatch.setattr(main, "TERMINATION_LOG", note)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(SystemExit) as caught:
        main._finish(Exit.DATA, f"a file is missing, and {TOKEN} must not be told")
    assert caught.value.code == 3
    assert json.loads(note.read_text()) == {
        "exit": 3,
        "reason": "data",
        "message": "a file is missing, and HF_TOKEN must not be told",
    }
