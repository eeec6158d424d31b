"""The HTML report, and what it shares with the model card."""
