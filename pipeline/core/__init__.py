"""Types that all parts of the pipeline share: frame, color, viewport, segmentation, interfaces, buffers. Imports no sibling."""
