"""The measurements, one module for each `cliprl-bench` command."""
