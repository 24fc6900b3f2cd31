"""The figures that a version is held to, in one bounded run, and beside an earlier checkout."""
