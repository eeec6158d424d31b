"""The model to start from: fetched, completed and probed; its loss and the parts that are exchanged while it trains."""
