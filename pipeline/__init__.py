"""A frame's way: decode, see, refine, overlay, encode."""
