"""Find the endoscope's field of view in a frame."""
