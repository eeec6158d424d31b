"""Engine: measures an engine alone, without HTTP, as the upper bound for its server; prints one line of JSON.

`python -m bench.serve.engine kickoff-engine|transformers-cb-engine MODEL SECONDS CLIENTS...` keeps N requests running:
for each that ends, another is submitted. The prompts are the servers', already tokenized; the window is load.py's.
`--device cuda:0` runs on a GPU. Kickoff's engine only: `--sampled` samples with temperature 1 and top-p 0.9, and
`--logprobs` asks for each token's log-probability, as for a confidence.

It knows both engines' interfaces. It does not know HTTP.
"""

import argparse
import itertools
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from bench.machine import best_dtype
from bench.model import NEW_TOKENS, questions
from bench.serve.load import Window
from bench.serve.process import Busy
from bench.serve.systems import TUNED


class Running(Protocol):
    """A running engine."""

    dtype: str

    def submit(self, id: str, prompt: list[int]) -> None:
        """Add a request."""
        ...

    def step(self) -> list[int]:
        """Compute for a while; return the numbers of tokens of the requests that have ended."""
        ...


class Kickoff:
    """The engine, loaded as serve.worker does."""

    def __init__(self, model: Path, device: str, asked: dict[str, Any]) -> None:
        from serve.engine.engine import Engine
        from serve.engine.memory import free_memory
        from serve.engine.model import load
        from serve.engine.warmup import warm_up

        loaded = load(model, device, "auto")
        packed = [str(module.dtype) for module in loaded.modules() if type(module).__name__ == "_PackedLinear"]
        self.dtype = f"{loaded.dtype}, {len(packed)} linear layers packed in {packed[0] if packed else 'nothing'}"
        self.engine = Engine(loaded, max_rows=32, cache_bytes=free_memory(device) // 2)
        warm_up(self.engine, hang_seconds=30)
        self.made: dict[str, int] = {}
        self.asked = asked

    def submit(self, id: str, prompt: list[int]) -> None:
        from serve.engine.request import Request

        self.made[id] = 0
        self.engine.submit(Request(id, prompt, NEW_TOKENS, **self.asked))

    def step(self) -> list[int]:
        tokens = self.engine.step()
        for token in tokens:
            self.made[token.id] += 1
        return [self.made.pop(token.id) for token in tokens if token.finish]


class Transformers:
    """transformers' continuous batching with the settings that `transformers serve` gets in systems.py."""

    def __init__(self, model: Path, device: str, asked: dict[str, Any]) -> None:
        import torch
        from transformers import AutoModelForCausalLM, ContinuousBatchingConfig

        if asked:
            raise ValueError("--sampled and --logprobs are for kickoff's engine only")
        dtype = best_dtype() if device == "cpu" else "bfloat16"
        loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))
        loaded.to(device)
        self.dtype = str(loaded.dtype)
        settings: dict[str, Any] = {name.removeprefix("cb-").replace("-", "_"): value for name, value in TUNED.items()}
        settings["page_size"] = settings.pop("block_size")  # renamed in the API, but not in the command line
        self.manager: Any = loaded.init_continuous_batching(
            continuous_batching_config=ContinuousBatchingConfig(**settings)
        )
        self.manager.start()

    def submit(self, id: str, prompt: list[int]) -> None:
        self.manager.add_request(prompt, request_id=id, max_new_tokens=NEW_TOKENS)

    def step(self) -> list[int]:
        result = self.manager.get_result(timeout=1)
        if result is None and not self.manager.is_running():
            raise RuntimeError(f"transformers' engine failed: {self.manager.background_thread_status.fatal_error}")
        return [len(result.generated_tokens)] if result is not None and result.is_finished() else []


KINDS: dict[str, Callable[[Path, str, dict[str, Any]], Running]] = {
    "kickoff-engine": Kickoff,
    "transformers-cb-engine": Transformers,
}


def _prompts(model: Path) -> Iterator[list[int]]:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    chats = [[{"role": "user", "content": question}] for question in questions()]
    ready = [tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"] for chat in chats]
    return itertools.cycle(ready)


def measure(engine: Running, prompts: Iterator[list[int]], clients: int, seconds: float) -> dict[str, Any]:
    """Measure the tokens per second with `clients` requests at once."""
    window, busy = Window(clients, seconds), Busy([])
    for index in range(clients):
        engine.submit(f"{clients} {index}", next(prompts))
    running, ids, errors = clients, itertools.count(clients), 0
    while running:
        for made in engine.step():
            running -= 1
            errors += made != NEW_TOKENS
            window.add(made)
            if window.count == clients:
                busy.open()
            if window.closed is None:
                engine.submit(f"{clients} {next(ids)}", next(prompts))
                running += 1
    others = busy.shares()["cpu_others"]
    wrong = {"wrong number of tokens": errors} if errors else {}
    return {
        "clients": clients,
        "requests": len(window.inside),
        "seconds": round(window.duration, 2),
        "tokens_per_second": round(window.tokens_per_second, 1),
        "cpu_others": others,
        "errors": wrong,
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep standard output free for the result."""
    logging.disable(logging.WARNING)
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = out


def main() -> None:
    """Measure one engine, and print the result."""
    parser = argparse.ArgumentParser(prog="python -m bench.serve.engine")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("model", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("clients", type=int, nargs="+")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sampled", action="store_true")
    parser.add_argument("--logprobs", action="store_true")
    arguments = parser.parse_args()
    asked: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9} if arguments.sampled else {}
    asked |= {"logprobs": True} if arguments.logprobs else {}
    with _quiet():
        engine = KINDS[arguments.kind](arguments.model, arguments.device, asked)
        prompts = _prompts(arguments.model)
        cells = [measure(engine, prompts, number, arguments.seconds) for number in arguments.clients]
    print(json.dumps({"dtype": engine.dtype, "device": arguments.device, "cells": cells}), flush=True)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    import os

    os._exit(0)  # transformers' engine has a thread that would keep the process alive
