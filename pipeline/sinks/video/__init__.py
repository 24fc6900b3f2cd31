"""Video files: encoder, muxer, audio."""
