"""What is compared at the start: a model that is not computed as transformers computes it is slower, or refused."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from architectures import GPT, LONGROPE, MODELS, SIZES, build, path_of
from served import Served
from transformers import AutoConfig, masking_utils

from serve.engine import attention, verify
from serve.engine.attention import Layout, Unsupported
from serve.engine.cache import bytes_per_token, one_token
from serve.engine.engine import Engine
from serve.engine.limits import can_verify, limits
from serve.engine.model import load
from serve.engine.request import Request

ROOM = 2**30


def test_a_model_whose_answers_depend_on_the_batch_is_computed_one_request_at_a_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build("llama", SIZES, tmp_path)
    model.model.rotary_emb.register_forward_hook(
        lambda module, arguments, keywords, output: tuple(
            tensor * (1 + 0.01 * len(keywords["position_ids"])) for tensor in output
        ),
        with_kwargs=True,
    )
    verify.choose_attention(model)
    assert path_of(model) == "single"
    assert "each request is computed alone, which is slower, since after" in caplog.text


def test_a_model_that_is_not_computed_in_pieces_is_refused(tmp_path: Path) -> None:
    model = build("llama", SIZES, tmp_path)
    model.model.layers[0].register_forward_hook(
        lambda module, arguments, output: output * (1.1 if output.shape[1] == verify.CHUNK else 1)
    )
    with pytest.raises(ValueError, match=r"does not answer as transformers' generate does \(.*alone.*\); publish"):
        verify.choose_attention(model)


@pytest.mark.parametrize("kind", ["raises", "not a number"])
def test_a_model_that_generate_cannot_answer_with_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    model = build("llama", SIZES, tmp_path)

    def broken(module: torch.nn.Module, arguments: Any, output: torch.Tensor) -> torch.Tensor:
        if kind == "raises":
            raise TypeError("first\nsecond")
        return output * float("nan")

    model.model.layers[0].register_forward_hook(broken)
    with pytest.raises(ValueError, match="first|NaN or infinite") as refused:
        verify.choose_attention(model)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("window", [8, 64, 100])
@pytest.mark.parametrize("by", [-1, 1])
def test_a_window_that_is_off_by_one_token_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int, by: int
) -> None:
    """The comparison reaches the window's edge, and its tolerance is smaller than one token's difference."""
    model = build("mistral", SIZES | {"sliding_window": window}, tmp_path)
    plain = masking_utils.sliding_window_overlay
    taken: list[int] = []

    def overlay(sliding_window: int) -> Any:
        taken.append(sliding_window)
        return plain(sliding_window + (by if attention._current else 0))

    monkeypatch.setattr(masking_utils, "sliding_window_overlay", overlay)
    verify.choose_attention(model)
    assert taken
    assert path_of(model) == "single"


@pytest.mark.parametrize("lost", ["positions", "block"])
def test_a_mistake_of_the_cache_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    model = build("llama", SIZES, tmp_path)
    right = Layout.causal

    def wrong(layout: Layout) -> torch.Tensor:
        if lost == "block" and layout.decode:
            return right(layout) & (torch.arange(layout.columns) < 64)
        if lost == "positions" and layout.decode:  # all rows as long as the longest
            return (torch.arange(layout.columns) <= layout.positions.max()).expand(len(layout.starts), 1, 1, -1)
        return right(layout)

    monkeypatch.setattr(Layout, "causal", wrong)
    verify.choose_attention(model)
    assert path_of(model) == "single"


def layout() -> Layout:
    return Layout([0], [4], 64, torch.arange(8)[None].clamp(max=3), False)


def attend(module: torch.nn.Module | None = None, mask: torch.Tensor | None = None, **arguments: Any) -> torch.Tensor:
    q, k = torch.randn(1, 2, 8, 4), torch.randn(1, 2, 64, 4)
    with attention.use_layout(layout()):
        output, _ = attention._attend(module or torch.nn.Module(), q, k, k, mask, **arguments)
    return output


@pytest.mark.parametrize(
    "arguments",
    [
        {"s_aux": torch.zeros(2)}, {"softcap": 50.0}, {"dropout": 0.1}, {"sliding_window": 8}, {"is_causal": False},
        {"position_bias": torch.zeros(1)}, {"sinks": torch.zeros(2)}, {"indices": [1]}, {"block_indices": 0},
        {"head_mask": torch.ones(2)}, {"named_in_a_later_version": "x"}, {"deterministic": True},
    ],
    ids=lambda arguments: next(iter(arguments)),
)  # fmt: skip
def test_an_unsupported_attention_argument_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        attend(**arguments)


def test_attention_arguments_without_effect_are_accepted() -> None:
    attend(
        s_aux=None, softcap=None, dropout=0.0, sliding_window=None, is_causal=True, cu_seq_lens_q=None,
        output_attentions=False, position_ids=torch.arange(8)[None],
    )  # fmt: skip


def test_a_mask_that_was_not_made_here_is_refused() -> None:
    with pytest.raises(Unsupported, match="a mask of its own"):
        attend(mask=torch.zeros(1, 1, 8, 64))


def test_attention_that_is_not_causal_is_refused() -> None:
    module = torch.nn.Module()
    module.is_causal = False  # type: ignore[assignment]
    with pytest.raises(Unsupported, match="not causal"):
        attend(module)


@pytest.mark.parametrize(
    ("kind", "settings", "context", "reason"),
    [
        ("gpt2", GPT, 160, "max_position_embeddings"),
        ("gpt2", GPT | {"n_positions": 70}, 70, "max_position_embeddings"),
        ("mpt", MODELS["mpt"][1] | {"max_seq_len": 90}, 90, "max_seq_len"),
        ("bloom", MODELS["bloom"][1], 2048, "its config names none"),
        ("bloom", MODELS["bloom"][1] | {"seq_length": 100}, 100, "seq_length"),
        ("bloom", MODELS["bloom"][1] | {"n_ctx": 101}, 101, "n_ctx"),
        ("roberta", SIZES | {"is_decoder": True, "pad_token_id": 1}, 158, "its table of positions"),
        ("phi3", MODELS["phi3 longrope"][1], 120, "rotary"),
        ("phi3", SIZES | {"rope_parameters": LONGROPE, "original_max_position_embeddings": 30}, 30, "rotary"),
        ("llama", MODELS["llama dynamic rope"][1], 120, "rotary"),
        ("llama", MODELS["llama yarn"][1], 160, "max_position_embeddings"),
        ("mistral", SIZES | {"sliding_window": 8}, 160, "max_position_embeddings"),
        ("mistral", SIZES | {"sliding_window": 10**8, "max_position_embeddings": 2 * 10**8}, 10**8, "sliding window"),
    ],
)
def test_the_context_is_what_the_model_promises_under_any_name(
    kind: str, settings: dict[str, Any], context: int, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = build(kind, settings, tmp_path)
    found = limits(model, 2**40, 1)
    assert found.context == context
    assert reason in found.reason


@pytest.mark.parametrize(
    ("kind", "size", "window", "device", "crossed"),
    [
        ("gemma3_text", (640, 18), 512, "cpu", True),
        ("gemma3_text", (1152, 26), 512, "cpu", True),
        ("gemma3_text", (1152, 26), 512, "cuda", True),
        ("gpt_oss", (2880, 24), 128, "cuda", True),
        ("mistral", (4096, 32), 4096, "cpu", False),
        ("mistral", (4096, 32), 4096, "cuda", True),
    ],
)
def test_a_window_is_crossed_where_the_device_can_afford_it(
    kind: str, size: tuple[int, int], window: int, device: str, crossed: bool
) -> None:
    """The sizes of gemma-3-270m, gemma-3-1b, gpt-oss-20b and Mistral-7B-v0.1."""
    config = AutoConfig.for_model(kind, hidden_size=size[0], num_hidden_layers=size[1], sliding_window=window)
    model: Any = SimpleNamespace(config=config, device=torch.device(device))
    assert can_verify(model, window) == crossed


def test_a_far_window_has_room_in_the_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "ROOM", 2**16)
    model = build("mistral", SIZES | {"sliding_window": 100}, tmp_path)
    assert 2**16 // 2 // bytes_per_token(one_token(model)) < 137
    verify.choose_attention(model)
    assert path_of(model) == "batched"


@pytest.mark.parametrize("reads", ["get_seq_length", "get_mask_sizes"])
def test_a_model_that_reads_positions_from_the_caches_length_is_detected(tmp_path: Path, reads: str) -> None:
    model = build("llama", SIZES, tmp_path)

    def far(module: torch.nn.Module, arguments: Any, keywords: Any) -> Any:
        cache = keywords["past_key_values"]
        length = cache.get_seq_length() if reads == "get_seq_length" else cache.get_mask_sizes(1, 0)[0]
        return (arguments[0] * (2 if length > 50_000 else 1), *arguments[1:]), keywords

    model.model.layers[0].register_forward_pre_hook(far, with_kwargs=True)
    verify.choose_attention(model)
    assert path_of(model) == "single"


@pytest.mark.parametrize(
    "name", ["gpt2", "opt", "roberta that decodes", "mpt", "phi3 longrope", "llama dynamic rope", "xglm", "ctrl"]
)
def test_a_request_that_fills_the_context_is_answered_as_by_generate(name: str, tmp_path: Path) -> None:
    plain = build(*MODELS[name], tmp_path)
    engine = Engine(load(tmp_path, "cpu", "float32", threads=1))
    prompt = [5 + index % 80 for index in range(engine.limits.context - 3)]
    with pytest.raises(ValueError, match="expected 1 to"):
        engine.submit(Request("too long", prompt, 4))
    engine.eos = set()
    engine.submit(Request("x", prompt, 3))
    made = []
    while not engine.idle:
        made += [token.token for token in engine.step()]
    expected = plain.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)  # type: ignore[operator]
    assert made == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("kind", ["mamba", "openai-gpt"])
def test_the_server_refuses_such_a_model_once_in_one_line(kind: str, published: Path, tmp_path: Path) -> None:
    """Code 2, which tells a supervisor that starting it anew does not help."""
    folder = tmp_path / "served"
    shutil.copytree(published, folder)
    for old in (*folder.glob("*.safetensors"), folder / "config.json"):
        old.unlink()
    generation = (folder / "generation_config.json").read_text()
    build(kind, MODELS[kind][1] | {"vocab_size": 400}, folder)
    (folder / "generation_config.json").write_text(generation)
    served = Served(folder)
    served.start()
    code = served.process.wait(60)
    said = served.output()
    assert code == 2
    assert said.count("cannot be served: found ") == 1
    assert "serve this model with transformers itself" in said
    assert "Traceback" not in said
    assert "exiting" not in said, "the reason is the last word"
