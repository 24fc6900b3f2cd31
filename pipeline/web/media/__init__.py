"""Encoding of displayed frames for browsers: JPEG, VP8 and WebRTC."""
