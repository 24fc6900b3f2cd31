"""A small promptable head on a bundle's features: points and boxes correct a mask. Training, and measurement by clicks."""
