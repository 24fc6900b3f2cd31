"""The training stages: contrastive, supervised, reinforcement."""
