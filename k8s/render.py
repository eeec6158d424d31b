"""Renders the Kubernetes objects of a run: `python k8s/render.py CONFIG [OVERLAY] | kubectl apply --server-side -f -`.

OVERLAY is a folder beside this file, "train" by default. kustomize reads no files outside its own folders and does not
support generateName. So it gets a copy of k8s/ in which CONFIG and its data files replace examples/soccer, and the time
is appended to the run's name. The volume keeps its name, and so does the ConfigMap as long as its files are equal.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from job.config.read import load
from job.data import files as data_files
from job.data import local_files
from job.errors import ConfigError, DataError

HERE = Path(__file__).parent
EXAMPLE = "examples/soccer"
"""The placeholder in train/ for the folder of a run."""
NAME = re.compile(r"^kind: (?:Job|JobSet|TrainJob)\nmetadata:\n(?:  .*\n)*?  name: .*$", re.MULTILINE)
MOST_BYTES = 1_000_000  # a ConfigMap's limit is 1 MiB


def files_of(path: Path) -> list[Path]:
    """Return the config's file and the data files that it names.

    Args:
        path: CONFIG, relative to the working folder.

    Raises:
        ConfigError: The config is not valid, or would not run in a pod as it runs here.
    """
    config = load(path)
    folder = path.parent
    if not re.fullmatch(r"[\w-][\w./-]*", str(folder)) or ".." in folder.parts or folder.parts[0] == "runs":
        raise ConfigError(f"{path}: expected a path from here and a folder of its own, such as {EXAMPLE}/config.yaml")
    unknown = config.retriever.unknown
    named = [*local_files.paths(config.dataset), *(data_files.paths(unknown) if unknown is not None else [])]
    files = list(dict.fromkeys([path, *named]))
    for file in files:
        if file.parent != folder or not re.fullmatch(r"[\w.-]+", file.name) or not file.is_file():
            raise ConfigError(
                f"{path}: names {file}, expected a file beside it, in {folder}; the pod mounts that folder"
            )
    size = sum(file.stat().st_size for file in files)
    if size > MOST_BYTES:
        remedy = "upload the data set to the Hub and set dataset.name"
        raise ConfigError(f"{path}: {size:,} bytes with its data, a ConfigMap takes {MOST_BYTES:,}; {remedy}")
    for key, value in (("output", config.output), ("publish.folder", config.publish.folder)):
        if value is not None and not _is_on_volume(value):
            raise ConfigError(f"{path}: {key}: found {value}, expected runs/..., where the volume is mounted")
    for key, name in (("base", config.model.base), ("ground", config.model.ground or "")):
        if not _is_on_volume(name) and (name.startswith((".", "/", "~")) or (name and Path(name).is_dir())):
            raise ConfigError(
                f"{path}: model.{key}: {name} is a folder of this machine, expected owner/name of the Hub"
            )
    return files


def _is_on_volume(folder: str) -> bool:
    return Path(folder).parts[:1] == ("runs",) and ".." not in Path(folder).parts


def render(path: Path, overlay: str, stamp: str) -> str:
    """Render the objects as YAML.

    Args:
        path: CONFIG, relative to the working folder.
        overlay: A folder of k8s/.
        stamp: Suffix for the name of the run.

    Raises:
        ConfigError: As for `files_of`, or the overlay or kubectl does not exist.
    """
    files = files_of(path)
    with tempfile.TemporaryDirectory() as scratch:
        k8s, folder = Path(scratch, "k8s"), Path(scratch, path.parent)
        shutil.copytree(HERE, k8s)
        folder.mkdir(parents=True)
        for file in files:
            shutil.copy(file, folder)
        component = yaml.safe_load((HERE.parent / EXAMPLE / "kustomization.yaml").read_text())
        component["configMapGenerator"][0]["files"] = [file.name for file in files]
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(component))
        for manifest in (k8s / "train" / "kustomization.yaml", k8s / "train" / "job.yaml"):
            text = manifest.read_text().replace(f"{EXAMPLE}/config.yaml", str(path))
            manifest.write_text(text.replace(EXAMPLE, str(path.parent)))
        return NAME.sub(lambda match: match[0] + stamp, _kustomize(k8s / overlay))


def _kustomize(folder: Path) -> str:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise ConfigError("kubectl: not found in PATH")
    if not (folder / "kustomization.yaml").exists():
        known = ", ".join(sorted(file.parent.name for file in HERE.glob("*/kustomization.yaml")))
        raise ConfigError(f"overlay: found {folder.name}, expected one of {known}")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        raise ConfigError(done.stderr.strip())
    return done.stdout


def main() -> None:
    """Print the objects of the config on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", type=Path, help="The run's YAML file, as examples/soccer/config.yaml.")
    parser.add_argument("overlay", nargs="?", default="train", help="A folder of k8s/.")
    arguments = parser.parse_args()
    try:
        print(render(arguments.config, arguments.overlay, time.strftime("-%y%m%d-%H%M%S")), end="")
    except (ConfigError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
