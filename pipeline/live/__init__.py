"""The live path: a picture that goes on at the camera's rate whatever happens to the segmenter, and says what it shows."""
