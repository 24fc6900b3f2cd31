"""Write a trained network as an engine bundle."""
