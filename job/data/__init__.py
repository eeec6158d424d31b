"""The parts of the data stages: where the rows come from, and what their texts are made of."""
