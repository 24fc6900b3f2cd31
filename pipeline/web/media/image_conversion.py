"""Conversion of frames for display: RGB with correct colors, upright, with square pixels, at a limited size."""

from __future__ import annotations

import cv2

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.sinks.frame_image import FrameConverter, Image

# The longer side of images for browsers, in pixels; larger frames are scaled down.
LONGEST = 1920
JPEG_QUALITY = 85


class ImageConverter(FrameConverter):
    """Converts frames to BGR images for display. For one thread at a time."""

    def bgr(self, frame: Frame, longest: int = LONGEST) -> Image:
        """Return the frame as displayed: uint8 (h, w, 3), BGR, both sides even and at most `longest` pixels."""
        return self.convert(frame, (frame.luma, frame.chroma), *display_size(frame, longest))


def display_size(frame: Frame, longest: int = LONGEST) -> tuple[int, int]:
    """Return (width, height) of the upright frame with square pixels, fitted into `longest`; both are even."""
    width, height = float(frame.width * (frame.sample_aspect or 1)), float(frame.height)
    if frame.rotation % 180:
        width, height = height, width
    scale = min(1.0, longest / max(width, height))
    return max(round(width * scale / 2) * 2, 2), max(round(height * scale / 2) * 2, 2)


def jpeg(image: Image, quality: int = JPEG_QUALITY) -> bytes:
    """Encode a BGR image as JPEG (JFIF: full-range BT.601)."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def png(frame: Frame) -> bytes:
    """Encode a frame as PNG, as displayed, at its full size."""
    image = ImageConverter().bgr(frame, longest=1 << 14)
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
