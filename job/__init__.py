"""Kickoff's batch job: from a file of questions and answers to a published language model."""
