"""A LitServe server as its documentation shows one: a transformers pipeline in `setup`, called in `predict`.

One request after the other, weights as published (float32):
`python -m bench.serve.litserve_pipeline MODEL PORT`.
"""

import sys
from typing import Any

import litserve as ls
from transformers import pipeline


class PipelineAPI(ls.LitAPI):  # type: ignore[misc, unused-ignore] # litserve has no types
    """The question through the model's chat template; length and decoding as its generation_config says."""

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
