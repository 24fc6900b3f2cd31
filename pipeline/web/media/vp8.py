"""VP8 for WebRTC: every browser must decode it (RFC 7742), and one encoder serves all viewers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.video.frame import PictureType

from cliprl.pipeline.web.media.image_conversion import Image

CLOCK = Fraction(1, 90_000)
# Bits a pixel, of which text and contours stay legible; the rate is for so many frames a second.
_BITS, _NOMINAL_RATE = 0.3, 25
# A viewer that lost a picture asks for a key frame; one comes by itself after so many frames, should the request be lost too.
_KEY_PERIOD = 125


class Vp8Encoder:
    """Encodes BGR pictures without delay. A picture of another size begins a new stream, which decoders follow."""

    def __init__(self) -> None:
        self._context: Any = None
        self._last = -1

    def encode(self, image: Image, pts: int, *, key: bool) -> tuple[bytes, int, bool]:
        """(data, pts, is a key frame); `pts` in 90 kHz, moved behind the last where it is not. `key` demands a key frame."""
        height, width = image.shape[:2]
        if self._context is None or (self._context.width, self._context.height) != (width, height):
            self._context = _open(width, height)
        # libvpx's VP8 has no colour tags: browsers read it as limited-range BT.601, which is what this makes.
        picture = av.VideoFrame.from_ndarray(
            np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), np.uint8), "yuv420p"
        )
        self._last = picture.pts = max(pts, self._last + 1)
        picture.time_base = CLOCK
        picture.pict_type = PictureType.I if key else PictureType.NONE
        packets = self._context.encode(picture)
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
