"""A virtual camera (Linux, V4L2), which video calls and recorders open like any camera."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame, Plane
from cliprl.pipeline.core.interfaces import BaseSink, OutputSpec
from cliprl.pipeline.core.nv12 import recolor
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink
from cliprl.pipeline.sinks.video.encoder import DEFAULT_RATE
from cliprl.pipeline.sinks.video.letterbox import letterbox

DEVICE_PREFIX = "/dev/video"
_FORMAT = "v4l2"
_REMEDY = "'sudo modprobe v4l2loopback' makes one that takes frames"


class VirtualCamera(BaseSink):
    """Writes uncompressed frames (I420) to the output device `path`, of the first frame's size, upright, in limited range.

    Raises UsageError if there is no such device, CliprlError if it takes no frames, as a real camera doesn't.
    """

    def __init__(self, path: Path, spec: OutputSpec) -> None:
        if not (path.exists() and stat.S_ISCHR(path.stat().st_mode)):
            raise UsageError(f"no such device '{path}': {_REMEDY}; --list-devices names those there are")
        self._path, self._rate = path, spec.stream.rate or DEFAULT_RATE
        self._container: Any = None
        self._stream: Any = None
        self._picture: Any = None

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Write one frame."""
        luma, chroma = (np.rot90(plane, frame.rotation // 90) for plane in (frame.luma, frame.chroma))
        if (
            frame.color.full_range
        ):  # what opens a camera takes Y'CbCr for limited range, as V4L2 states where it states none
            luma, chroma = luma.copy(), chroma.copy()
            recolor(luma, chroma, frame.color, ColorSpace(frame.color.matrix))
        try:
            if self._stream is None:
                self._open(luma.shape[0] // 2 * 2, luma.shape[1] // 2 * 2)
            self._fill(luma, chroma, frame)
            self._container.mux(self._stream.encode(self._picture))
            self.frames += 1
        except (OSError, ValueError, av.FFmpegError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CliprlError(f"'{self._path}' takes no frames ({reason}): {_REMEDY}") from error

    def close(self) -> None:
        """Let the device go. Calling it twice is harmless."""
        container, self._container, self._stream = self._container, None, None
        if container is not None:
            with suppress(OSError, ValueError, av.FFmpegError):
                container.close()

    def _open(self, height: int, width: int) -> None:
        self._container = av.open(str(self._path), "w", format=_FORMAT)
        self._stream = self._container.add_stream("rawvideo", rate=self._rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._picture = av.VideoFrame(width, height, "yuv420p")

    def _fill(self, luma: Plane, chroma: Plane, frame: Frame) -> None:
        height, width = self._picture.height, self._picture.width
        if (len(luma) // 2 * 2, luma.shape[1] // 2 * 2) != (height, width):
            upright = np.ascontiguousarray(luma), np.ascontiguousarray(chroma)
            luma, chroma = letterbox(*upright, height, width, ColorSpace(frame.color.matrix))
        self._picture.make_writable()
        planes = (luma, chroma[..., 0], chroma[..., 1])
        for plane, values in zip(self._picture.planes, planes, strict=True):
            rows: NDArray[np.uint8] = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            rows[: plane.height, : plane.width] = values[: plane.height, : plane.width]
        self._picture.pts = self.frames


@register_sink(prefixes=(DEVICE_PREFIX,), shown="/dev/video9", help="a virtual camera", is_stream=True)
def open_virtual_camera(target: str, spec: OutputSpec, settings: EncoderSettings) -> VirtualCamera:
    """Open a virtual camera."""
    return VirtualCamera(Path(target), spec)
