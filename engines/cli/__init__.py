"""The command line of `cliprl-engine`, and what all command lines share."""
