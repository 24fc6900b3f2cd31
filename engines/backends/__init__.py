"""Compile and run networks: one package for each inference library, and what they share."""
