"""The names that configs have for the context: how many tokens question and answer may have together.

It is read by the engine and by processes that must stay small, so it needs neither torch nor transformers.
"""

NAMES = (
    "max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "max_seq_length", "seq_length",
    "n_ctx",
)  # fmt: skip
"""The first that a config has counts."""
