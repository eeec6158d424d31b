"""Serves a retriever: finds the published answer that belongs to a question."""
