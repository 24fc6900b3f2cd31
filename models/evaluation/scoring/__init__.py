"""Scores, each under its own name: a bare "mIoU" means a different number in every paper."""
