"""The base model: fetched, completed and probed; its loss, and the layers that are replaced during training."""
