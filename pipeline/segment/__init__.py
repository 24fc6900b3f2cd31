"""From a frame to its segmentation: segmenter, refinement loop, temporal prior, prompts."""
