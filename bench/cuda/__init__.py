"""What is measured on an NVIDIA GPU."""
