"""Publishing: the parts of the published repository, and the way there."""
