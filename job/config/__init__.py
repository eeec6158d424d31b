"""The config of a run: its keys, how a file of them is read and checked, and what it says of mistakes."""
