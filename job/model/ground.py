"""Ground: where the retriever of a grounded generator lies in the generator's folder.

retriever/       the published retriever, whole
grounding.json   version, rows (how many of them a prompt carries)

It knows names of files. It does not know what a retriever does.
"""

import shutil
from pathlib import Path

FOLDER, SETTINGS = "retriever", "grounding.json"


def copy(folder: Path, target: Path) -> None:
    """Copy the retriever of the generator in `folder`, if it is grounded, to the generator in `target`."""
    if (folder / SETTINGS).exists():
        shutil.copytree(folder / FOLDER, target / FOLDER)
        shutil.copy2(folder / SETTINGS, target / SETTINGS)
