"""The search for settings: learning rate, number of epochs and decoding, tried on a part of the training rows."""
