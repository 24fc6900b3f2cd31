"""The part of the web viewer that corrects masks."""
