"""The training beside its peers: `python -m bench.train`, `bench.train.quality` and `bench.train.shared`."""
