"""Train and score the networks: architecture, data, training, evaluation and export."""
