"""Publishing of a finished run, to the test Hub or to a folder, with answers that a test gives."""

from pathlib import Path
from typing import Any

from machines import CPU

from job.config.schema import Config
from job.evaluation import evaluate
from job.hub import client as hub_client
from job.publishing import publish
from job.run.facts import Published

QUESTIONS = ["What is 3 plus 3?", "What is 9 plus 9?"]


def ask(folder: Path, questions: list[str]) -> list[str]:
    return evaluate.answer(folder, questions, CPU)


def config_of(output: str = "nowhere/run", **section: object) -> Config:
    """A config of which only the publish section and a folder that is apart from it matter."""
    values = {"dataset": {"file": "nowhere.json"}, "output": output, "publish": section}
    return Config.model_validate(values)


def preflight(create: bool = True, **section: object) -> None:
    publish.preflight(config_of(**section), [], create)


def publish_to_hub(finished: Path, answer: Any = ask, **values: object) -> Published:
    section = {"repo": "ada/soccer", "timeout_seconds": 5.0, **values}
    config = config_of(str(finished), **section)
    hub_client.configure(config.publish.timeout_seconds)
    publish.preflight(config, [])
    return publish.publish(config.publish, finished / "model", QUESTIONS, answer)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def other_answers(folder: Path, questions: list[str]) -> list[str]:
    """The model in the run folder, and another one everywhere else."""
    return ["one", "two" if folder.name == "model" else "three"]
