"""Cameras (V4L2) as a source."""

from __future__ import annotations

from pathlib import Path

from cliprl.engines import UsageError
from cliprl.pipeline.sources.decoding.low_latency import TIMEOUT, WITHOUT_PARSER
from cliprl.pipeline.sources.registry import SourceOptions, register_source
from cliprl.pipeline.sources.v4l2_devices import device_options, find_device, list_devices
from cliprl.pipeline.sources.video import VideoSource

CAMERA = "camera:"


@register_source(prefixes=("/dev/video", CAMERA), shown="/dev/video0 camera:NAME", help="a camera", live=True)
def open_camera(name: str, options: SourceOptions) -> VideoSource:
    """Open a camera: "/dev/video0" or "camera:NAME", with settings such as "?size=1280x720&rate=30&format=mjpeg".

    Raises UsageError if there is no such camera, CliprlError if it gives no frame.
    """
    path, settings = device_options(name)
    if path.startswith(CAMERA):
        path = find_device(path.removeprefix(CAMERA))
    if not Path(path).exists():
        found = ", ".join(device.path for device in list_devices())
        raise UsageError(f"no such device {path}: {f'use one of {found}' if found else 'attach a camera'}")
    source = VideoSource(path, format="v4l2", options=WITHOUT_PARSER | settings, timeout=TIMEOUT, live=True)
    given, asked = f"{source.info.width}x{source.info.height}", settings.get("video_size")
    if asked and asked != given:
        source.note(f"the camera gives {given}, not {asked}: v4l2-ctl --list-formats-ext lists what it can give")
    return source
