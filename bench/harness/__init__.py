"""The method that all measurements share: timing, statistics, environment, result files."""
