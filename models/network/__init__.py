"""The CLIP-RL network: backbone, decoder, text and refiner."""
