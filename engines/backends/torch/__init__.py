"""The torch backend: an NVIDIA GPU without TensorRT."""
