"""Choose the engine for a bundle: variants, accuracy gate, speed test."""
