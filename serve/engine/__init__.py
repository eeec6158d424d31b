"""The engine's process: a model, its cache and the requests that are being answered."""
