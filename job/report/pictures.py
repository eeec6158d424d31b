"""Pictures: plots as PNG, and as text that a page of HTML holds. It does not know what is plotted."""

import base64
import io
from typing import Any


def axes(width: float, height: float, columns: int = 1) -> tuple[Any, Any]:
    """Make a figure of so many inches, and its axes; with several columns an array of them."""
    from matplotlib.figure import Figure  # without pyplot, which keeps state and wants a display

    figure = Figure(figsize=(width, height), layout="constrained")
    found = figure.subplots(ncols=columns)
    for each in [found] if columns == 1 else found:
        each.grid(alpha=0.3)
    return figure, found


def png(figure: Any) -> bytes:
    """Draw a figure; the same one gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    return stream.getvalue()


def data_uri(picture: bytes) -> str:
    """Write a PNG as the address of an image."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()
