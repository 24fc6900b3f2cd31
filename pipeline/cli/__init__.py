"""The command line of `cliprl-stream`."""
