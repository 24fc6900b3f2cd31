"""The command lines of `cliprl-train` and `cliprl-eval`."""
