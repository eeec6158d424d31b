"""The process that answers HTTP: what it reads, checks and writes."""
