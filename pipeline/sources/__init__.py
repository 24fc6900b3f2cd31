"""Where frames come from: files, cameras, network streams, pictures, and a rendered demo."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from cliprl.engines import UsageError
from cliprl.pipeline.sources.base import FrameSource
from cliprl.pipeline.sources.decoding.timestamps import DEFAULT_RATE
from cliprl.pipeline.sources.images.image_list import ImageSource, expand, is_pattern
from cliprl.pipeline.sources.images.stills import is_still
from cliprl.pipeline.sources.live_inputs import CAMERA, SCREEN, open_device, open_screen, open_url
from cliprl.pipeline.sources.probe import check_file
from cliprl.pipeline.sources.stdin import STDIN, open_stdin
from cliprl.pipeline.sources.video import VideoSource

# Names that look like nothing in the file system.
_PREFIXES = ("demo:", "/dev/video", CAMERA, SCREEN)

__all__ = ["FrameSource", "ImageSource", "VideoSource", "open_source"]


def open_source(name: str | Path, *, rate: Fraction | int | None = None, stream: int | None = None) -> FrameSource:
    """Open whatever gives frames.

    `name` is a video file, a camera ("/dev/video0?size=1280x720&rate=30", "camera:NAME"), a screen ("screen:"), a URL (rtsp, srt,
    udp, http, https, …), pictures ("frames/*.png",
    "frames/%04d.png"; `rate` a second, 25 where not given), "-" for standard input, or
    "demo:?seconds=10&seed=3&size=800x640&rate=25". `stream` is the index of the video stream to show, of a file or a URL with
    several; None: the one marked as default, or the largest.
    Raises UsageError where there is no such thing, CliprlError where it gives no picture: one line each.
    """
    text = os.fspath(name)
    if not text:
        raise UsageError("the input has an empty name: name a video, pictures, a camera or a stream")
    pictures = not os.path.exists(text) and "://" not in text and not text.startswith(_PREFIXES) and is_pattern(text)
    if pictures or (text.startswith(_PREFIXES) and not os.path.isfile(text)):
        _check_no_stream(text, stream)
    if pictures:
        if rate is not None and rate <= 0:
            raise UsageError(f"a rate of {rate} pictures a second makes no stream: give a rate above 0")
        return ImageSource(text, expand(text), Fraction(rate or DEFAULT_RATE))
    if rate is not None:
        raise UsageError(f"{text} has a rate of its own: a rate is only for pictures such as frames/*.png")
    if os.path.isfile(text):  # whatever its name: "demo:x.mp4", and "a:b.mp4", which would be a protocol to libav
        check_file(Path(text))
        if is_still(Path(text)):
            _check_no_stream(text, stream)
            return ImageSource(text, [Path(text)])
        return VideoSource(os.path.abspath(text) if ":" in text or text == STDIN else text, stream=stream)
    if text == STDIN:
        return open_stdin(stream)
    if text.startswith("demo:"):
        from cliprl.pipeline.sources.demo import DemoSource

        return DemoSource(text)
    if "://" in text:
        return open_url(text, stream)
    if text.startswith(("/dev/video", CAMERA)):
        return open_device(text)
    if text.startswith(SCREEN):
        return open_screen(text)
    check_file(Path(text))
    return VideoSource(text if ":" not in text else os.path.abspath(text), stream=stream)


def _check_no_stream(name: str, stream: int | None) -> None:
    if stream is not None:
        raise UsageError(f"{name} has no streams to choose from: --stream is for video files and network streams")
