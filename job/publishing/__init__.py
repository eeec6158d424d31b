"""Publishes the model to the Hub or a folder: checked before training, verified afterwards."""
