"""What every stage of a run needs, whatever the stage does."""
