"""Masks from prompts alone, written as a data set that a network can be trained on."""
