"""Segmentation in a separate process, and masks moved to the displayed frame."""
