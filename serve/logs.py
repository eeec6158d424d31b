"""Configures the log of each server process: lines for people, or one JSON object per line.

It knows Python's logging. The caller decides what a line says; `extra={"fields": {...}}` holds its fields.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Any


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object: time, level, logger and message, then the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": at, "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(as_json: bool) -> None:
    """Configure the log of this process and of those forked from it.

    Args:
        as_json: write JSON objects in place of lines for people.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if as_json:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())
    # the access log already has a line for such a request
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.msg != "Invalid HTTP request received.")
    # at shutdown it warns about every process that has already ended; the reason is logged elsewhere
    logging.getLogger("litserve.server").setLevel(logging.ERROR)
