"""The server compared with its peers: `python -m bench.serve`; overloaded: `python -m bench.serve.overload`."""
