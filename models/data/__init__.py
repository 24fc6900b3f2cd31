"""Data sets, augmentation and corruptions."""
