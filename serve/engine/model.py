"""Loads a published model for inference: device, number format, and weights in the layout that the device needs.

On a CPU, the weights of linear layers are packed for oneDNN once, in bfloat16 if the processor computes in it; all else
stays in float32. In bfloat16 this gives 1.6 to 1.8 times the tokens per second of a model that is bfloat16 throughout,
and is closer to the float32 model, since only products are rounded. In float32 it gives 1.5 to 3 times the tokens per
second of torch's own linear layers on an AMD processor without AVX-512. On a GPU the model is converted.

It knows transformers' models and torch. It does not know requests or the machine's limits.
"""

import logging
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from serve.engine import memory, verify
from serve.engine.activations import replace_activations
from serve.engine.threads import count

log = logging.getLogger(__name__)
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
PACKABLE = (nn.Linear, Conv1D)
PROBE = 8
"""Tokens of the passes that compare packed with plain weights."""
TOLERANCE = 0.05
"""Largest distance of the logits with packed weights from those with plain ones, relative to their norm."""


def load(folder: Path, device: str, dtype: Dtype, threads: int | None = None) -> PreTrainedModel:
    """Load a model and verify it.

    Args:
        folder: of the published model.
        device: "cpu", "cuda:0", ...
        dtype: "auto" is the best that the device computes in.
        threads: on a CPU; None is what `threads.count` says.

    Raises:
        OSError: the files cannot be read.
        ValueError: the files are not a causal language model, or the device cannot compute in `dtype`.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # it warns about prompts with the padding token, which are harmless
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device: found {device}, and torch {torch.__version__} can use no GPU here; give the container one "
            "(--gpus all, nvidia.com/gpu) on a machine with driver 580 or newer, or set --device cpu"
        )
    chosen = _dtype(torch.device(device), dtype)
    on_cpu = torch.device(device).type == "cpu"
    if on_cpu:
        torch.set_num_threads(threads or count())
        memory.return_freed_memory()
    model = _read(folder, device, torch.float32 if on_cpu else chosen)
    if on_cpu:
        if reason := _pack(model, chosen):
            log.warning(
                "engine: packed weights cannot be used for this model (%s); using plain float32 instead", reason
            )
            del model  # packing has replaced the plain weights
            model = _read(folder, device, torch.float32)
        memory.keep_freed_memory()
    verify.warn_if_batch_dependent(model)
    return model


def _read(folder: Path, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """Load the model with plain weights, and verify it against transformers' `generate`."""
    loading: Any = AutoModelForCausalLM.from_pretrained
    model: PreTrainedModel
    model, info = loading(folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True)
    if missing := sorted(info["missing_keys"]):  # transformers would use random numbers instead
        raise ValueError(f"its weights lack {', '.join(missing[:3])}{' and more' if missing[3:] else ''}")
    nn.Module.to(model, device).eval().requires_grad_(False)
    verify.choose_attention(model)
    if torch.device(device).type == "cpu":
        replace_activations(model)
    return model


def _dtype(device: torch.device, requested: Dtype) -> torch.dtype:
    if device.type == "cuda":
        best = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    elif device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        bf16 = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16")
        best = torch.bfloat16 if bf16 else torch.float32
    else:
        best = torch.float16
    if requested == "auto":
        return best
    chosen: torch.dtype = getattr(torch, requested)
    if chosen not in (best, torch.float32):
        raise ValueError(f"dtype: found {requested}, expected auto, float32 or {str(best)[6:]} on this {device.type}")
    return chosen


class _PackedLinear(nn.Module):
    """A linear layer with weights packed by oneDNN in `dtype`; input and output are float32.

    A single row is computed twice: oneDNN's kernel for one row sums in another order than the one for more rows, and
    takes as long as that for two.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.to(dtype).contiguous(), None)
        self.bias = None if bias is None else bias.to(dtype)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows = input.reshape(-1, input.shape[-1]).to(self.dtype)
        padded = rows.expand(2, -1) if len(rows) == 1 else rows
        output = torch.ops.mkldnn._linear_pointwise(padded, self.weight, self.bias, "none", [], "")[: len(rows)]
        return output.float().view(*input.shape[:-1], -1)  # type: ignore[no-any-return]


@torch.inference_mode()
def _pack(model: PreTrainedModel, dtype: torch.dtype) -> str | None:
    """Replace the linear layers by packed ones, one at a time, so that at most one is in memory twice.

    Returns:
        Why the result cannot be used; None if it can.
    """
    ids = torch.arange(PROBE)[None]
    plain, embeddings = model(ids).logits, cast(nn.Embedding, model.get_input_embeddings())
    shared = embeddings.weight.data_ptr()  # may be tied to the last layer's weights, and is still needed
    layers = [
        (parent, name) for parent in model.modules() for name, child in parent.named_children() if is_packable(child)
    ]
    try:
        for parent, name in layers:
            layer = getattr(parent, name)
            setattr(parent, name, pack_layer(layer, dtype))
            if layer.weight.data_ptr() != shared:
                memory.forget_pages(layer.weight)
            del layer
        difference = float((model(ids).logits - plain).norm() / plain.norm())
    except (AttributeError, RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return None if difference < TOLERANCE else f"its logits differ by {difference:.0%}"


def is_packable(layer: nn.Module) -> bool:
    """Whether `pack_layer` takes this layer."""
    return type(layer) in PACKABLE


def pack_layer(layer: Any, dtype: torch.dtype) -> nn.Module:
    """Make a layer that computes the same with packed weights; its input and output are float32."""
    return _PackedLinear(layer.weight.t() if type(layer) is Conv1D else layer.weight, layer.bias, dtype)
