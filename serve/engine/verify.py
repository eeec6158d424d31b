"""Verifies at the start that the engine computes the model as transformers does.

transformers' `generate` answers a few prompts one by one; their lengths cross the edges of the cache's blocks and of
the model's windows. The engine then answers them together, and its logits are compared with those of `generate`. A
model that fails is computed one request at a time (single.py); if that differs too, it is refused. Weights are still
plain, not packed, so that the tolerance can be small.

What a model does only far beyond these lengths is not detected. A model that computes positions from the cache's
length, which is one for all rows, is detected: with that length a million larger, no logit may change.

It knows the engine's public methods, and transformers. It has no list of models.
"""

import logging
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel

from serve.engine import attention
from serve.engine.batched import BatchedPasses
from serve.engine.cache import BLOCK, bytes_per_token, one_token
from serve.engine.engine import Engine
from serve.engine.limits import can_verify, limits, vocabulary, windows
from serve.engine.request import Request
from serve.engine.row import Row
from serve.messages import one_line

log = logging.getLogger(__name__)
NEW_TOKENS = 2
"""Tokens of an answer, the second from a decode; the answer to the shortest prompt has twice as many."""
CHUNK = 32
"""Prefill tokens here, so that short prompts have several chunks too."""
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest distance of the logits from those of `generate`, relative to their spread over the vocabulary. Kernels that
sum in another order differ by about 1e-6 in float32."""
EXTRA_LENGTH = 10**6
"""Tokens added to the cache's length, to find a model that computes with it."""
LENGTH_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}
"""Largest distance of the logits from those at the true length. On a GPU two equal runs may differ."""
ROOM = 2**30
"""Bytes of cache for the comparison, or more if the two longest prompts need it; only what is used is allocated."""


@dataclass(frozen=True)
class Probe:
    """A prompt, the answer of `generate`, and the logits of each of its tokens, (tokens, vocabulary)."""

    prompt: list[int]
    answer: list[int]
    logits: torch.Tensor


@torch.inference_mode()
def choose_attention(model: PreTrainedModel) -> None:
    """Choose the fast path or the slow one, by setting the attention implementation that `Engine` reads.

    Args:
        model: with plain weights.

    Raises:
        ValueError: the engine cannot compute the model as transformers does; the text says why.
    """
    try:
        one_token(model)
    except ValueError:
        raise
    except Exception as error:  # unknown models raise anything; any failure is a reason to refuse
        raise ValueError(f"it cannot compute a token ({one_line(error)})") from error
    probes = _generate_references(model)
    own = model.config.get_text_config()._attn_implementation
    why_not = _try_batched(model, probes)
    if why_not is None:
        return
    _set_attention(model, own)
    if (differs := _difference(model, probes)) is not None:
        raise ValueError(
            f"the engine does not answer as transformers' generate does ({why_not}; one request alone: {differs}); "
            "publish a model that generates from left to right, or serve this one with transformers itself"
        )
    log.warning("engine: each request is computed alone, which is slower, since %s", why_not)


@torch.inference_mode()
def warn_if_batch_dependent(model: PreTrainedModel) -> None:
    """Log a warning if the last bits of an answer depend on the requests computed beside it."""
    if model.config.get_text_config()._attn_implementation != attention.NAME:
        return
    draw = torch.Generator().manual_seed(1)
    asked = [(_tokens(model, length, draw), _tokens(model, 2, draw)) for length in (3, CHUNK + 1)]
    alone = [_logits(model, [one], rows=1)[0] for one in asked]
    together = _logits(model, asked, rows=len(asked))
    if _unpacked(model) or not all(torch.equal(*pair) for pair in zip(alone, together, strict=True)):
        log.warning(
            "engine: this model's logits depend, in the last bits, on the requests in the same batch; "
            "a near tie between two tokens may go either way"
        )


def _unpacked(model: PreTrainedModel) -> bool:
    """Whether some weights of products are not packed: experts, or all where packing is not possible."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return any(weight.dim() > 1 and id(weight) not in tables for weight in model.parameters())


def _generate_references(model: PreTrainedModel) -> list[Probe]:
    """Answer the prompts with `generate`.

    Raises:
        ValueError: `generate` fails, or its logits are not finite.
    """
    draw = torch.Generator().manual_seed(0)
    published, model.generation_config = model.generation_config, GenerationConfig(pad_token_id=0)
    probes = []
    try:
        for length, count in _lengths(model):
            prompt = _tokens(model, length, draw)
            ids = torch.tensor([prompt], device=model.device)
            made = cast(Any, model).generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
                return_dict_in_generate=True, output_logits=True,
            )  # fmt: skip
            probes.append(Probe(prompt, made.sequences[0, length:].tolist(), torch.cat(made.logits).float()))
    except Exception as error:  # any failure is a reason to refuse
        raise ValueError(f"transformers' own generate fails with it ({one_line(error)})") from error
    finally:
        model.generation_config = published
    if not all(bool(torch.isfinite(probe.logits.max(-1).values).all()) for probe in probes):
        raise ValueError("its logits are NaN or infinite; publish a model whose weights fit its number format")
    return probes


def _tokens(model: PreTrainedModel, count: int, draw: torch.Generator) -> list[int]:
    return [int(token) for token in torch.randint(vocabulary(model), (count,), generator=draw)]


def _lengths(model: PreTrainedModel) -> list[tuple[int, int]]:
    """Lengths of prompts and answers: short, over two chunks, across a block's edge, and across each window's edge."""
    most = limits(model, ROOM, 1).context - 2 * NEW_TOKENS
    if most < 1:
        raise ValueError(f"found a context of {most + 2 * NEW_TOKENS} tokens, expected more than {2 * NEW_TOKENS}")
    lengths = {2, CHUNK + 5, BLOCK}
    for window in windows(model):
        if can_verify(model, window):
            lengths |= {window - 1, window, window + CHUNK + 5}
    fitting = {max(1, min(length, most)) for length in lengths}
    # shuffled, so that a short prompt follows a long one
    mixed = sorted(fitting, key=lambda length: length % 5)
    return [(length, 2 * NEW_TOKENS if length == min(fitting) else NEW_TOKENS) for length in mixed]


def _try_batched(model: PreTrainedModel, probes: list[Probe]) -> str | None:
    """Set the engine's own attention; returns why it cannot be used, or None."""
    try:
        _set_attention(model, attention.NAME)
    except Exception as error:  # a model whose attention cannot be replaced raises anything
        return one_line(error)
    if model.config.get_text_config()._attn_implementation != attention.NAME:  # some models ignore it
        return attention.OWN_ATTENTION
    return _difference(model, probes) or _reads_cache_length(model, probes)


def _reads_cache_length(model: PreTrainedModel, probes: list[Probe]) -> str | None:
    """Check that the model does not compute with the cache's length, since each row has a length of its own."""
    asked = [(probe.prompt, probe.answer) for probe in probes if len(probe.prompt) <= BLOCK]
    try:
        plain, longer = (_logits(model, asked, rows=2, extra_length=extra) for extra in (0, EXTRA_LENGTH))
    except Exception as error:  # unknown models raise anything
        return f"its attention reads the cache's length ({one_line(error)})"
    moved = not all(_distance(*pair) < LENGTH_TOLERANCE[model.dtype] for pair in zip(longer, plain, strict=True))
    return "its attention reads the cache's length" if moved else None


def _set_attention(model: PreTrainedModel, name: str) -> None:
    if model.config.get_text_config()._attn_implementation != name:
        model.set_attn_implementation(name)


def _difference(model: PreTrainedModel, probes: list[Probe]) -> str | None:
    """Describe how the engine's logits differ from those of `generate`; None if they do not."""
    try:
        made = _logits(model, [(probe.prompt, probe.answer) for probe in probes], rows=max(2, len(probes) - 1))
    except Exception as error:  # unknown models raise anything
        return one_line(error)
    for probe, logits in zip(probes, made, strict=True):
        distance = _distance(logits, probe.logits)
        if not distance < TOLERANCE[model.dtype]:
            return f"after {len(probe.prompt)} tokens its logits differ by {distance:.2g}"
    return None


def _distance(logits: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest distance of a token's logits from the expected ones, relative to their spread."""
    spread = (expected - expected.mean(-1, keepdim=True)).norm(dim=-1)
    return float(((logits - expected).norm(dim=-1) / spread.clamp_min(1e-9)).max())


def _logits(
    model: PreTrainedModel, asked: list[tuple[list[int], list[int]]], rows: int, extra_length: int = 0
) -> list[torch.Tensor]:
    """Compute the engine's logits for each prompt and the given answer to it, (tokens, vocabulary) each."""
    longest = max(len(prompt) + len(answer) for prompt, answer in asked)
    engine = _ForcedEngine(model, {str(index): answer for index, (_, answer) in enumerate(asked)}, rows, longest)
    if isinstance(engine.passes, BatchedPasses):
        engine.passes.cache.extra_length = extra_length
    for index, (prompt, answer) in enumerate(asked):
        engine.submit(Request(str(index), prompt, len(answer)))
    while not engine.idle:
        engine.step()
    if failures := engine.failures():
        raise ValueError(failures[0].reason)
    return [torch.stack(engine.logits_of[str(index)]).float() for index in range(len(asked))]


class _ForcedEngine(Engine):
    """An engine that generates given tokens (teacher forcing), so that ties do not matter; keeps the logits."""

    def __init__(self, model: PreTrainedModel, answers: dict[str, list[int]], rows: int, longest: int = 1) -> None:
        """Prepare the engine.

        Args:
            model: to compute.
            answers: the tokens to generate, by request id.
            rows: requests that run at once.
            longest: tokens of the longest prompt with its answer.
        """
        room = 4 * (longest + BLOCK) * bytes_per_token(one_token(model))
        super().__init__(model, max_rows=rows, cache_bytes=max(ROOM, room), prefill_tokens=CHUNK)
        self.answers = answers
        self.logits_of: dict[str, list[torch.Tensor]] = {id: [] for id in answers}
        self.eos = set()

    def _choose(self, logits: torch.Tensor, rows: list[Row]) -> list[int]:
        for line, row in zip(logits, rows, strict=True):
            self.logits_of[row.request.id].append(line.clone())
        return [self.answers[row.request.id][len(row.generated)] for row in rows]
