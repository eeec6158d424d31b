"""Measured comparisons: of the server (`serve`), of the training (`train`), of the data's preparation (`prepare`)."""
