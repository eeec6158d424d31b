"""A retriever: its index of answers, and how it is asked."""
