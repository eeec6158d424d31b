"""Measures a model on the test rows, and decides whether it may be published."""
