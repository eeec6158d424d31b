"""guidellm, a benchmark client, run as its users run it: every answer must be as long as the benchmark asks."""

import json
import os
import subprocess
from pathlib import Path

import httpx2
import pytest
from checkout import ENVIRONMENTS
from served import Served

pytestmark = [pytest.mark.clients, pytest.mark.timeout(240)]
REQUESTS, PROMPT, OUTPUT = 4, 16, 24


def test_every_answer_is_as_long_as_the_benchmark_asks(server: Served, published: Path, tmp_path: Path) -> None:
    """The model ends its answers after some 7 tokens. guidellm asks for more, with `ignore_eos`."""
    report = tmp_path / "report.json"
    (model,) = [one["id"] for one in httpx2.get(f"{server.url}/v1/models", timeout=60).json()["data"]]
    done = subprocess.run(
        [
            *(str(ENVIRONMENTS / "guidellm" / "bin" / "guidellm"), "run", "--disable-console"),
            *("--backend", f"kind=openai_http,target={server.url},model={model}"),
            *("--profile", "kind=synchronous", "--constraint", f"kind=max_requests,count={REQUESTS}"),
            *("--data", f"kind=synthetic_text,prompt_tokens={PROMPT},output_tokens={OUTPUT}"),
            *("--tokenizer", f"kind=hf_auto,model={published}", "--output", f"kind=json,path={report}"),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=200, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (benchmark,) = json.loads(report.read_text())["benchmarks"]
    assert benchmark["requests"]["errored"] == []
    answers = benchmark["requests"]["successful"]
    assert len(answers) == REQUESTS
    assert {answer["output_tokens"] for answer in answers} == {OUTPUT}
