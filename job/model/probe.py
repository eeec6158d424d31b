"""Probe: tests the behaviour of a loaded base on a few short rows, before anything is trained.

A list of known architectures would always be out of date; the probe tests what training, evaluation and serving rely
on. It knows models and tensors. It knows neither where the model came from nor text.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig, PreTrainedModel

from job.errors import ConfigError
from job.model.ids import count_embeddings
from job.run.messages import one_line
from job.run.out_of_memory import is_out_of_memory

SAME = 1e-5
"""Tolerance, relative to the logits' range, for equal shapes: they are summed in the same order, so nothing differs."""
SIMILAR = 1e-4
"""Tolerance for other shapes: another order of summation moves logits by 1e-6 of their range in fp32."""
PADDED = ("its cache or its positions differ", "padding in front changes its answers")
LENGTH = 16
"""Tokens in a probed row."""
_CONTEXT_NAMES = (
    "max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length", "max_seq_len",
    "context_length",
)  # fmt: skip


def require_causal(base: str, model: PreTrainedModel, padding: int, special: set[int]) -> int | None:
    """Require that a prediction depends on no later token, no other row of the batch, and no padding.

    Args:
        base: Name of the base, for errors.
        model: The loaded base.
        padding: The id that batches are padded with.
        special: Ids that ordinary text does not have.

    Returns:
        The longest row that the model reads, in tokens; None if it has no limit.

    Raises:
        ConfigError: The model sees the tokens that it must predict, mixes rows, or fails.
    """
    with _probing(base, model):
        named = _named_context(model)
        length = min(LENGTH, named or LENGTH)
        ids = _random_ids(model, special, (3, length))
        with _Positions(length) as positions:
            alone = _logits(model, ids[:1])[0]
        if not torch.isfinite(alone).all():
            raise ConfigError(f"model.base: {base} predicts NaN or infinity from ordinary tokens")
        for position in (length - 1, length // 2):
            changed = ids[:1].clone()
            changed[0, position] = ids[1 if ids[1, position] != ids[0, position] else 2, position]
            if _differ(_logits(model, changed)[0, :position], alone[:position], SAME):
                raise ConfigError(
                    f"model.base: {base} sees the tokens that it must predict: it is bidirectional, an encoder such "
                    "as BERT, and not a causal language model; use a decoder, such as distilbert/distilgpt2"
                )
        if _differ(_logits(model, ids)[0], alone, SIMILAR):
            raise ConfigError(
                f"model.base: {base} predicts differently for a row in a batch and for the row alone (as experts of "
                "limited capacity do), so no measurement would be reliable; use another base"
            )
        _require_right_padding(base, model, ids, alone, padding)
    limits = [limit for limit in (named, positions.limit) if limit is not None]
    return min(limits, default=None)


def require_generation(base: str, model: PreTrainedModel, special: set[int], context: int | None) -> None:
    """Require that generation from left-padded questions gives the logits of one forward pass over each row alone.

    Args:
        base: Name of the base, for errors.
        model: The loaded base, with the generation config that is published.
        special: Ids that ordinary text does not have.
        context: The longest row that the model reads, in tokens; None if it has no limit.

    Raises:
        ConfigError: The logits differ.
    """
    with _probing(base, model):
        steps = 3
        length = min(LENGTH, (context or LENGTH) - steps)
        short = length // 2
        ids = _random_ids(model, special, (2, length))
        mask = torch.ones_like(ids)
        mask[1, : length - short] = 0
        padding = model.generation_config.pad_token_id
        ids[1, : length - short] = padding
        config = GenerationConfig(
            max_new_tokens=steps,
            do_sample=False,
            pad_token_id=padding,
            output_logits=True,
            return_dict_in_generate=True,
        )
        generated = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)  # type: ignore[operator]
        for row, start in ((0, 0), (1, length - short)):
            expected = _logits(model, generated.sequences[row : row + 1, start:-1])[0, length - start - 1 :]
            if _differ(torch.stack([step[row] for step in generated.logits]), expected, SIMILAR):
                raise ConfigError(
                    f"model.base: {base} generates differently from what it predicts in one pass ({PADDED[row > 0]}), "
                    "so its answers would not be those that it is trained on; use another base"
                )


def _require_right_padding(
    base: str, model: PreTrainedModel, ids: torch.Tensor, alone: torch.Tensor, padding: int
) -> None:
    length = ids.shape[1] - 3
    padded, mask = ids[:1].clone(), torch.ones_like(ids[:1])
    padded[0, length:], mask[0, length:] = padding, 0
    for attention_mask in (mask, None):
        if _differ(_logits(model, padded, attention_mask)[0, :length], alone[:length], SIMILAR):
            raise ConfigError(
                f"model.base: {base} predicts differently for a row with padding after it, as in every batch of "
                "training; use another base"
            )


@contextmanager
def _probing(base: str, model: PreTrainedModel) -> Iterator[None]:
    """Compute in fp32, without dropout and gradients; dtypes and mode are restored at the end.

    In bf16 the rounding is larger than what some models leak from later tokens.
    """
    tensors = [tensor for tensor in chain(model.parameters(), model.buffers()) if tensor.is_floating_point()]
    types = [tensor.dtype for tensor in tensors]
    training = model.training
    model.float().eval()
    try:
        with torch.no_grad():
            yield
    except ConfigError:
        raise
    except Exception as error:  # a model that is no causal one may raise anything
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            f"model.base: {base} does not compute as a causal language model: {type(error).__name__}: {one_line(error)}"
        ) from None
    finally:
        model.train(training)
        for tensor, dtype in zip(tensors, types, strict=True):
            tensor.data = tensor.data.to(dtype)


class _Positions(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types for it
    """Finds a learned position table, which a row of `length` tokens looks up: its size is the context."""

    def __init__(self, length: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.length = length
        self.limit: int | None = None

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.embedding.default:
            table, ids = args[0], args[1].flatten()
            if len(ids) == self.length and torch.equal(ids, torch.arange(self.length) + ids[0]):
                # OPT and RoBERTa do not use the first two rows
                self.limit = min(self.limit or len(table), len(table) - int(ids[0]))
        return func(*args, **(kwargs or {}))


def _named_context(model: PreTrainedModel) -> int | None:
    config = model.config.get_text_config()
    values = (getattr(config, name, None) for name in _CONTEXT_NAMES)
    return next((value for value in values if isinstance(value, int) and value > 0), None)


def _logits(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits


def _differ(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> bool:
    spread = expected.amax(-1) - expected.amin(-1)
    return bool(((actual - expected).abs().amax(-1) > tolerance * spread).any())


def _random_ids(model: PreTrainedModel, special: set[int], shape: tuple[int, int]) -> torch.Tensor:
    """Draw ids of ordinary text, with a fixed seed."""
    rows = count_embeddings(model)
    padding = getattr(model.config.get_text_config(), "pad_token_id", None)
    usable = [number for number in range(rows) if number not in special and number != padding] or list(range(rows))
    indices = torch.randint(len(usable), shape, generator=torch.Generator().manual_seed(0))
    return torch.tensor(usable)[indices]
