"""Finds rows that repeat others: exactly, nearly, or in meaning."""
