"""The measured comparisons: `python -m bench.serve` and `python -m bench.overload`."""
