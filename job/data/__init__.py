"""From files of rows to the encoded rows that are trained and tested. Nothing here imports torch."""
