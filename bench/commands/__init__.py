"""The commands of `cliprl-bench`, one module each."""
