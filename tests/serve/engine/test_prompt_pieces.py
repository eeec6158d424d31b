"""Long prompts are computed in pieces, between which others go on."""

from pathlib import Path

from generated import answers, generate, ids, run
from transformers import PreTrainedModel

from serve.engine.engine import Engine
from serve.engine.model import load
from serve.engine.request import Request


def test_a_long_prompt_is_computed_in_pieces_between_which_others_go_on(model: PreTrainedModel) -> None:
    engine, widths = Engine(model, prefill_tokens=32), list[int]()
    hook = model.register_forward_pre_hook(lambda _, arguments: widths.append(arguments[0].numel()))
    engine.submit(Request("running", [5], 60))
    engine.step()
    engine.submit(Request("long", [7, 8, 9] * 130, 5))
    made: dict[str, list[int]] = {"running": [], "short": [], "long": []}
    order: list[str] = []
    while not engine.idle:
        if len(made["running"]) == 3:
            engine.submit(Request("short", [6] * 5, 2))
        for token in engine.step():
            made[token.id].append(token.token)
            order.append(token.id)
    hook.remove()
    assert max(widths) <= 32
    assert order.index("short") < order.index("long")
    assert order[: order.index("long")].count("running") >= 390 // 32 - 2
    alone = Engine(model, prefill_tokens=32)
    alone.submit(Request("long", [7, 8, 9] * 130, 5))
    assert ids(run(alone)["long"]) == made["long"]


def test_answers_to_chunked_prompts_equal_those_of_generate(never_ending: Path) -> None:
    exact = load(never_ending, "cpu", "float32", threads=1)
    engine = Engine(exact, prefill_tokens=24)
    asked = [Request(str(length), list(range(5, 5 + length)), 9) for length in (23, 24, 25, 48, 49, 130, 300)]
    assert answers(engine, asked) == {one.id: generate(exact, one) for one in asked}


def test_a_request_can_be_cancelled_between_the_pieces_of_its_prompt(model: PreTrainedModel) -> None:
    engine = Engine(model, prefill_tokens=16)
    short = Request("short", [6] * 5, 30)
    for one in (Request("a", [5] * 200, 5), Request("b", [7] * 100, 5), short):
        engine.submit(one)
    begun = [token for _ in range(4) for token in engine.step()]
    engine.cancel("a")
    made = run(engine)
    assert made.keys() == {"b", "short"}
    made["short"] = [*begun, *made["short"]]
    alone = Engine(model, prefill_tokens=16)
    alone.submit(short)
    assert ids(made["short"]) == ids(run(alone)["short"])


def test_a_prefill_does_not_starve_running_requests(model: PreTrainedModel) -> None:
    engine = Engine(model, prefill_tokens=1)
    engine.submit(Request("running", [5], 50))
    engine.step()
    for index in range(6):
        engine.submit(Request(f"new {index}", [5] * 40, 50))
    kinds = [{token.id for token in engine.step()} for _ in range(8)]
    assert sum("running" in kind for kind in kinds) >= 3
