"""The log of every process of the server: lines for people, or one JSON object a line.

It knows Python's logging. What a line says is decided where it is written; `extra={"fields": {...}}` are its parts.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any


class AsJson(logging.Formatter):
    """time, level, logger and message, then the line's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said: dict[str, Any] = {"time": at, "level": record.levelname.lower(), "logger": record.name}
        said |= {"message": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


def configure(as_json: bool) -> None:
    """For this process and those that are forked from it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if as_json:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(AsJson())
    # the access log has a line for such a request
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != "Invalid HTTP request received.")
    # it warns of each process that has ended by the time it ends them; why one ended is said elsewhere
    logging.getLogger("litserve.server").setLevel(logging.ERROR)
