"""Fine-tuning: the loop, one step, its batches, its checkpoints."""
