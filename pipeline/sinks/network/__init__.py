"""Network streams and virtual cameras as outputs."""
