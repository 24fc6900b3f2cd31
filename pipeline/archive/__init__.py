"""Run a whole folder of videos, on this machine or on a Ray cluster: the command `cliprl-archive`."""
