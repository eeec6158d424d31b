"""Writes server-sent events whose data is JSON. It does not know what the data says."""

import json
from typing import Any

LINE_ENDS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""Characters that some clients take for a line end, which would end an event's data."""
END = "data: [DONE]\n\n"
"""The last event of OpenAI's streams."""


def event(data: dict[str, Any]) -> str:
    """Write an event without a name."""
    return f"data: {json.dumps(data, ensure_ascii=False).translate(LINE_ENDS)}\n\n"


def named_event(name: str, data: dict[str, Any]) -> str:
    """Write an event with a name."""
    return f"event: {name}\n{event(data)}"
