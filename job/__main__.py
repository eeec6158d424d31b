"""The command line: `python -m job run|prepare|check|evaluate|publish CONFIG [section.key=value ...]`,
`explain RUN` and `schema`.

It turns what a run came to into the exit code and the last line. Nothing heavy is imported before it is needed,
so that `--help` and a mistake in the config are answered at once.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from job.config.read import load
from job.config.schema import Config
from job.errors import Exit, KickoffError
from job.run import interrupt, outcome, threads

TERMINATION_LOG = Path("/dev/termination-log")
app = typer.Typer(
    add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__
)
ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="The run's YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SECTION.KEY=VALUE ...]", help="Values over the file's.", show_default=False),
]


@app.command()
def run(config: ConfigFile, overrides: Overrides = None) -> None:
    """Every stage in order, from the data set to the published model. Run again, it goes on where it stopped."""
    _carry_out("run", config, overrides)


@app.command()
def prepare(config: ConfigFile, overrides: Overrides = None) -> None:
    """The data alone, without a model: what is kept, what is rejected and why, as report.html."""
    _carry_out("prepare", config, overrides)


@app.command()
def check(config: ConfigFile, overrides: Overrides = None) -> None:
    """What can be known before training: data, base model, token, disk, memory, minutes."""
    _carry_out("check", config, overrides)


@app.command()
def evaluate(config: ConfigFile, overrides: Overrides = None) -> None:
    """Measure the model that `run` left, beside its base."""
    _carry_out("evaluate", config, overrides)


@app.command()
def publish(config: ConfigFile, overrides: Overrides = None) -> None:
    """Publish the model that `run` left."""
    _carry_out("publish", config, overrides)


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.", show_default=False)],
    where: Annotated[str, typer.Option(help='The row\'s place, as the report names it: "dataset.json row 12".')],
) -> None:
    """What happened to one row on its way through all stages of a run."""
    from job.explain import explain

    try:
        print(explain(run, where))
    except KickoffError as error:
        _end(error.exit_code, str(error))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the config, for editors."""
    print(json.dumps(Config.model_json_schema(), indent=2))


def _carry_out(command: str, path: Path, overrides: list[str] | None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    for noisy in ("httpx", "httpx2", "datasets", "huggingface_hub", "filelock"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported; bars wreck a container's log
    interrupt.install()
    try:
        code, message = _outcome(command, path, overrides)
        interrupt.ignore()
    except KeyboardInterrupt:
        code, message = Exit.INTERRUPTED, outcome.STOPPED
    _end(code, message)


def _outcome(command: str, path: Path, overrides: list[str] | None) -> tuple[Exit, str]:
    try:
        config = load(path, overrides)
        threads.configure()
        return Exit.DONE, _stage(command)(config)
    except (Exception, KeyboardInterrupt) as error:
        interrupt.ignore()  # what the error says must not be lost to a signal that comes now
        found = outcome.classify(error, command, interrupt.was_signalled())
        if found is None:
            if not outcome.is_lost_peer(error):
                outcome.record_code(Exit.FAILED)
            raise
        return found


def _stage(command: str) -> Callable[[Config], str]:
    from job import check, pipeline, prepare

    commands: dict[str, Callable[[Config], str]] = {
        "run": pipeline.run,
        "prepare": prepare.prepare_only,
        "check": check.check,
        "evaluate": pipeline.evaluate_only,
        "publish": pipeline.publish_only,
    }
    return commands[command]


def _end(code: Exit, message: str) -> None:
    """Say what happened, on the last line and where Kubernetes and the launcher look for it, and leave."""
    outcome.record_code(code)
    token = os.environ.get("HF_TOKEN")
    if token:
        message = message.replace(token, "HF_TOKEN")
    with suppress(OSError):  # of a terminal or a pipe that is gone: the exit code still tells
        print(("" if code == Exit.DONE else f"error ({code.name.lower()}, exit {code}): ") + message, flush=True)
    if TERMINATION_LOG.exists():
        TERMINATION_LOG.write_text(
            json.dumps({"exit": int(code), "reason": code.name.lower(), "message": message}) + "\n"
        )
    if interrupt.was_signalled():
        os._exit(code)  # a download's threads must not hold up the exit
    raise SystemExit(code)


if __name__ == "__main__":
    app(prog_name="python -m job")
