"""Tracking: instruments as instances with ids that last, and the motion between frames."""
