"""The server beside its peers: `python -m bench.serve`; under too much load: `python -m bench.serve.overload`."""
