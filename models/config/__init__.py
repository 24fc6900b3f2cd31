"""Training recipes: typed settings read from TOML."""
