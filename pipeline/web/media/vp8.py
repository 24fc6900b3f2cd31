"""VP8 encoding for WebRTC. Every browser must decode VP8 (RFC 7742); one encoder serves all viewers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.video.frame import PictureType

from cliprl.pipeline.sinks.frame_image import Image

CLOCK = Fraction(1, 90_000)
# Bits per pixel that keep text and contours legible, and the frame rate for which the bit rate is computed.
_BITS, _NOMINAL_RATE = 0.3, 25
# Frames between regular key frames. A viewer that loses a frame requests a key frame, but that request can be lost too.
_KEY_PERIOD = 125


class Vp8Encoder:
    """Encodes BGR images without delay. An image of another size starts a new stream, which decoders accept."""

    def __init__(self) -> None:
        self._context: Any = None
        self._last = -1

    def encode(self, image: Image, pts: int, *, key: bool) -> tuple[bytes, int, bool]:
        """Return (data, pts, whether it is a key frame). `pts` is in 90 kHz and made to ascend. `key` forces a key frame."""
        height, width = image.shape[:2]
        if self._context is None or (self._context.width, self._context.height) != (width, height):
            self._context = _open(width, height)
        # VP8 carries no color tags: browsers decode it as limited-range BT.601, which this conversion produces.
        frame = av.VideoFrame.from_ndarray(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8), "yuv420p")
        self._last = frame.pts = max(pts, self._last + 1)
        frame.time_base = CLOCK
        frame.pict_type = PictureType.I if key else PictureType.NONE
        packets = self._context.encode(frame)
        return b"".join(bytes(p) for p in packets), self._last, any(p.is_keyframe for p in packets)


def _open(width: int, height: int) -> Any:
    context: Any = av.CodecContext.create("libvpx", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = CLOCK, Fraction(_NOMINAL_RATE)
    rate = round(width * height * _BITS * _NOMINAL_RATE)
    context.bit_rate, context.gop_size, context.qmin, context.qmax = rate, _KEY_PERIOD, 2, 50
    context.thread_count = 1
    context.options = {
        "deadline": "realtime",
        "cpu-used": "-16",
        "lag-in-frames": "0",
        "error-resilient": "1",
        "static-thresh": "1",
        "minrate": str(rate),
        "maxrate": str(rate),
        "bufsize": str(rate // 2),
    }
    return context
