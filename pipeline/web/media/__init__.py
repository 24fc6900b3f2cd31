"""Displayed frames in the formats that browsers take: JPEG, VP8, WebRTC."""
