"""The command lines of `cliprl-train`, `cliprl-eval` and `cliprl-label`."""
