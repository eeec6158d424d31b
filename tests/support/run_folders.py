"""A run that has begun, and a later call that claims its folder."""

from pathlib import Path

from job.config.schema import Config
from job.data.local_files import local_data
from job.run.folder import RunFolder


def claim(config: Config) -> RunFolder:
    folder = RunFolder(config)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.open(local_data(config.dataset, folder.finished_request()))
    return folder


def start_run(config: Config) -> RunFolder:
    """A run folder with a checkpoint, of which only the name matters here."""
    folder = claim(config)
    checkpoint = folder / "checkpoints/step-00000007"
    checkpoint.mkdir(parents=True)
    (checkpoint / "complete.json").write_text("{}")
    return folder


def weights(config: Config) -> bytes:
    return (Path(config.output) / "model/model.safetensors").read_bytes()
