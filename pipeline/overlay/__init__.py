"""Draw a segmentation into a frame's planes: colors, contours, legend, text."""
