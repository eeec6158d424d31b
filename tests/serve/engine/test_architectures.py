"""Tiny random models of many architectures: each is answered as transformers' own `generate` does, or refused.

Each model is loaded as the server loads it, and asked alone and in company, with prompts across the edges of the
cache's blocks, of the model's windows and of the pieces of a prompt. There is no third way.
"""

import re
from pathlib import Path

import pytest
import torch
from architectures import MODELS, VOCABULARY, build, path_of
from transformers import GenerationConfig, PreTrainedModel

from serve.engine.engine import Engine
from serve.engine.model import load
from serve.engine.request import Request

LENGTHS = [1, 5, 30, 63, 64, 70, 103]
NEW = 6

OWN = "its attention is custom code"
APART = {
    "gpt_neo": OWN, "gptj": OWN, "codegen": OWN, "falcon, alibi": OWN, "falcon, multi-query": OWN,
    "falcon, new decoder": OWN, "bloom": OWN, "mpt": OWN, "xglm": OWN, "gpt_oss": "s_aux", "gemma2": "softcap",
    "bart's decoder": "sees later tokens", "llama4_text": "the cache's length",
    "llama4_text, temperature from afar": "the cache's length",
}  # fmt: skip
"""Models that are served by the slow path, and the reason that the log gives."""
NO_CACHE = r"found \w+, which has no attention keys and values; .*"
STATE = r"found layers of kind LinearAttentionLayer, expected attention layers only; .*"
REFUSED = {
    "openai-gpt": NO_CACHE, "xlnet": NO_CACHE, "mamba": NO_CACHE, "mamba2": NO_CACHE, "rwkv": NO_CACHE,
    "lfm2": STATE, "jamba": STATE, "recurrent_gemma": STATE,
    "bert that encodes": r"the engine does not answer as .* generate does \(.* later tokens;.*\); publish .*",
}  # fmt: skip
"""Models that are refused, and the line that says so."""


def generated(plain: PreTrainedModel, request: Request) -> list[int]:
    ids = torch.tensor([request.prompt])
    output = plain.generate(  # type: ignore[operator]
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=request.max_new_tokens, do_sample=False
    )  # fmt: skip
    return [int(token) for token in output[0, ids.shape[1] :]]


def answers(engine: Engine, requests: list[Request]) -> dict[str, list[int]]:
    made: dict[str, list[int]] = {request.id: [] for request in requests}
    for request in requests:
        engine.submit(request)
    while not engine.idle:
        for token in engine.step():
            made[token.id].append(token.token)
    assert engine.failures() == []
    return made


def requests(context: int) -> list[Request]:
    torch.manual_seed(1)
    lengths = [length for length in LENGTHS if length + NEW <= context]
    return [
        Request(str(length), torch.randint(3, VOCABULARY, (length,)).tolist(), 2 * NEW if length < 9 else NEW)
        for length in lengths
    ]


@pytest.mark.parametrize("name", MODELS)
def test_answers_equal_those_of_generate_or_the_model_is_refused(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = build(*MODELS[name], tmp_path)
    own = plain.config.get_text_config()._attn_implementation
    try:
        model = load(tmp_path, "cpu", "float32", threads=1)
    except ValueError as error:
        assert name in REFUSED
        assert re.fullmatch(REFUSED[name], str(error))
        return
    assert path_of(model) == ("single" if name in APART else "batched")
    slower = [record.message for record in caplog.records if "each request is computed alone" in record.message]
    assert [APART[name] in message for message in slower] == [True] if name in APART else not slower
    model.generation_config = GenerationConfig(pad_token_id=0)
    engine = Engine(model, prefill_tokens=48)
    asked = requests(engine.limits.context)
    assert len(asked) == len(LENGTHS)
    expected = {request.id: generated(plain, request) for request in asked}
    assert answers(engine, asked) == expected
    alone = Engine(model, max_rows=1, prefill_tokens=48)
    for request in asked:
        assert answers(alone, [request]) == {request.id: expected[request.id]}
    model.set_attn_implementation(own)
    assert path_of(model) == "single"
    assert answers(Engine(model, prefill_tokens=48), asked) == expected
