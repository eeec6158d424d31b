"""LitServe pipeline: a LitServe server as in its documentation: a transformers pipeline in `setup` and `predict`.

It answers one request after the other, with the weights as published (float32):
`python -m bench.serve.litserve_pipeline MODEL PORT`.
"""

import sys
from typing import Any

import litserve as ls
from transformers import pipeline


class PipelineAPI(ls.LitAPI):  # type: ignore[misc, unused-ignore] # litserve has no types
    """Answers a question with the model's chat template and generation config."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model

    def setup(self, device: str) -> None:
        self.pipeline = pipeline("text-generation", model=self.model, device=device)

    def decode_request(self, request: dict[str, Any]) -> str:
        return str(request["prompt"])

    def predict(self, prompt: str) -> str:
        answer = self.pipeline([{"role": "user", "content": prompt}])
        return str(answer[0]["generated_text"][-1]["content"])

    def encode_response(self, output: str) -> dict[str, str]:
        return {"output": output}


if __name__ == "__main__":
    server = ls.LitServer(PipelineAPI(sys.argv[1]), accelerator="auto")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
