"""Published folders to spoil."""

import json
from pathlib import Path


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
