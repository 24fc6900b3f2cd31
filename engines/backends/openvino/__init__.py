"""The OpenVINO backend: the CPU."""
