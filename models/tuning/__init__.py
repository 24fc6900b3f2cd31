"""Fine-tune the encoder of a bundle on a few labeled frames."""
