"""The training loop, its checkpoints, logs and parallelism."""
