"""Benchmarks: of the server (`serve`), the training (`train`) and the data preparation (`prepare`)."""
