"""Augmentation, corruptions and copy-paste composition of training images."""
