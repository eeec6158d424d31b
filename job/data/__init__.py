"""The rows of a run: what is known of them before any model sees them."""
