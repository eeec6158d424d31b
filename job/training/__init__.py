"""The parts of the stage that trains: one step, the loop of steps, the learning rate, going on from a checkpoint."""
