"""Correction of masks by hand: clicks and boxes change the mask of a held frame, and what is kept becomes a data set."""
