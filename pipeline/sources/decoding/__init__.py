"""From a container's packets to NV12 frames with their times, colors and orientation."""
