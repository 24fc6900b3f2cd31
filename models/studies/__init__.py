"""Studies whose results are committed, one command each."""
