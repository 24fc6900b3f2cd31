"""Score a bundle or a network on a data set."""
