"""The model's parts: finding the base, judging it before training, and its chat template."""
