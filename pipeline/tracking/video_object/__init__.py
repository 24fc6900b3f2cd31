"""Following by a video object network, such as SAM 2: prompted by our masks, it gives the mask of the followed instrument."""
