"""The TensorRT backends: `tensorrt` and `tensorrt_rtx` on an NVIDIA GPU."""
