"""Decoding and encoding on the GPU: NVDEC and NVENC."""
