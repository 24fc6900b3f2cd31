"""Fit the confidence of a bundle, and compare its distance with the out-of-body guard."""
