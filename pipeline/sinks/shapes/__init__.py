"""Masks as shapes of annotation formats: one mask for each class, polygons, and the run lengths of the labelling tools."""
