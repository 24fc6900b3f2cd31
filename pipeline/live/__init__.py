"""The live path: the display continues at the camera's rate whatever happens to the segmenter, the outputs or the camera."""
