"""The config keys that hold a model's context: the most tokens of question and answer together.

Processes that must stay small read it, so it imports neither torch nor transformers.
"""

NAMES = (
    "max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "max_seq_length", "seq_length",
    "n_ctx",
)  # fmt: skip
"""In order of precedence: the first key that a config has counts."""
