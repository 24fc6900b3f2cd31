"""The commands that read result files."""
