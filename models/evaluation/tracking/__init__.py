"""Scores of tracking: HOTA, IDF1, id switches, J&F, on maps of ids."""
