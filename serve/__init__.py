"""Kickoff's server: answers over HTTP from a published model."""
