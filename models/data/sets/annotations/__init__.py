"""Data sets of annotations: the files that labelling tools export."""
