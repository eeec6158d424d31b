"""Files of the system, as a test writes them."""

from pathlib import Path


def tree(root: Path, files: dict[str, str]) -> Path:
    """A machine's files, under `root`."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root
