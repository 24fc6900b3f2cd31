"""The engine bundle: its files, its manifest, its text encoder and its reference outputs."""
