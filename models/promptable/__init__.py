"""A small promptable head on the features of a bundle: points and boxes correct a mask. Training, and measurement by simulated clicks."""
