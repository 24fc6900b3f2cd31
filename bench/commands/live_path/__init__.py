"""The measurements of the live path."""
