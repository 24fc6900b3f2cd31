"""Choose the frames of videos that are worth labelling."""
