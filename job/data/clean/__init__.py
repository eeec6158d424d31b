"""Repairs the text of rows, and rejects rows that cannot be used."""
