"""Decoding: from the packets of a container to NV12 frames with times, color and orientation."""
