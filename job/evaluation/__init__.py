"""Evaluation: the parts of measuring a model on rows that it was not trained on."""
