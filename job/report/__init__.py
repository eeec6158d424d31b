"""What people read of a run: the HTML report, and what report and model card have in common."""
