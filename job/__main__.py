"""The command line: `python -m job run|prepare|check|evaluate|publish CONFIG [section.key=value ...]`.

Also `explain RUN`, `compare RUN...` and `schema`. It turns the outcome of a run into the exit code and the last line.
Heavy libraries are imported only when they are needed, so that `--help` and errors in the config come at once.
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
    """Run all stages, from the data set to the published model. Called again, it continues where it stopped."""
    _execute("run", config, overrides)


@app.command()
def prepare(config: ConfigFile, overrides: Overrides = None) -> None:
    """Prepare the data alone, without a model; report.html shows what is kept, what is rejected and why."""
    _execute("prepare", config, overrides)


@app.command()
def check(config: ConfigFile, overrides: Overrides = None) -> None:
    """Check all that can be known before training: data, base model, token, disk, memory, minutes."""
    _execute("check", config, overrides)


@app.command()
def evaluate(config: ConfigFile, overrides: Overrides = None) -> None:
    """Measure the model that `run` trained, and its base model, again."""
    _execute("evaluate", config, overrides)


@app.command()
def publish(config: ConfigFile, overrides: Overrides = None) -> None:
    """Publish the model that `run` trained."""
    _execute("publish", config, overrides)


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.", show_default=False)],
    where: Annotated[str, typer.Option(help='The row, as the report names it: "dataset.json row 12".')],
) -> None:
    """Explain what happened to one row in each stage of a run."""
    from job.explain import explain

    try:
        print(explain(run, where))
    except KickoffError as error:
        _finish(error.exit_code, str(error))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Finished run folders.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The HTML file to write.")] = Path("compare.html"),
) -> None:
    """Compare finished runs on the same test questions: metrics, which differences are real, answers side by side."""
    from job.report.compare import compare

    try:
        print(compare(runs, out))
    except KickoffError as error:
        _finish(error.exit_code, str(error))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the config, for editors."""
    print(json.dumps(Config.model_json_schema(), indent=2))


def _execute(command: str, path: Path, overrides: list[str] | None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    for name in ("httpx", "httpx2", "datasets", "huggingface_hub", "filelock", "sentence_transformers", "bm25s"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported; bars wreck a container's log
    interrupt.install()
    try:
        code, message = _outcome(command, path, overrides)
        interrupt.ignore()
    except KeyboardInterrupt:
        code, message = Exit.INTERRUPTED, outcome.STOPPED
    _finish(code, message)


def _outcome(command: str, path: Path, overrides: list[str] | None) -> tuple[Exit, str]:
    try:
        config = load(path, overrides)
        threads.configure()
        return Exit.DONE, _command(command)(config)
    except (Exception, KeyboardInterrupt) as error:
        interrupt.ignore()  # a signal that comes now must not replace the error
        result = outcome.classify(error, command, interrupt.was_signalled())
        if result is None:
            if not outcome.is_lost_peer(error):
                outcome.record_code(Exit.FAILED)
            raise
        return result


def _command(command: str) -> Callable[[Config], str]:
    from job import check, pipeline, prepare

    commands: dict[str, Callable[[Config], str]] = {
        "run": pipeline.run,
        "prepare": prepare.prepare_only,
        "check": check.check,
        "evaluate": pipeline.evaluate_only,
        "publish": pipeline.publish_only,
    }
    return commands[command]


def _finish(code: Exit, message: str) -> None:
    """Report the outcome on the last line, to Kubernetes and to the launcher, and exit."""
    outcome.record_code(code)
    token = os.environ.get("HF_TOKEN")
    if token:
        message = message.replace(token, "HF_TOKEN")
    with suppress(OSError):  # the terminal or pipe may be closed; the exit code remains
        print(("" if code == Exit.DONE else f"error ({code.name.lower()}, exit {code}): ") + message, flush=True)
    if TERMINATION_LOG.exists():
        TERMINATION_LOG.write_text(
            json.dumps({"exit": int(code), "reason": code.name.lower(), "message": message}) + "\n"
        )
    if interrupt.was_signalled():
        os._exit(code)  # threads of a download must not delay the exit
    raise SystemExit(code)


if __name__ == "__main__":
    app(prog_name="python -m job")
