"""Studies of words and exemplars: pseudo-labels, presence, and classes by a box."""
