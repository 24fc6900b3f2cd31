"""The cameras of this machine (V4L2) and their settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl

from cliprl.engines import UsageError

_SYSTEM = Path("/sys/class/video4linux")
# By option: libav's name for it, the form of its value, and that form in words.
_OPTIONS = {
    "size": ("video_size", r"\d{2,5}x\d{2,5}", "WIDTHxHEIGHT, as in 1280x720"),
    "rate": ("framerate", r"\d{1,5}(\.\d+|/\d+)?", "frames per second, as in 25 or 30000/1001"),
    "format": ("input_format", r"[a-z0-9_]+", "one of the driver's, as in mjpeg or yuyv422"),
}


class V4l2Device(NamedTuple):
    """A camera's path, and the name that its driver gives it."""

    path: str
    name: str


def list_devices(system: Path = _SYSTEM) -> list[V4l2Device]:
    """All video devices in the order of their numbers. One camera may have several, of which the first gives the video."""
    found = []
    for entry in system.glob("video*") if system.is_dir() else ():
        label = entry / "name"
        found.append(
            V4l2Device(f"/dev/{entry.name}", label.read_text(errors="replace").strip() if label.exists() else "")
        )
    return sorted(found, key=lambda device: int(re.sub(r"\D", "", device.path) or 0))


def find_device(name: str, system: Path = _SYSTEM) -> str:
    """The path of the first camera whose name contains `name`, whatever the case. Raises UsageError if there is none."""
    devices = list_devices(system)
    for device in devices:
        if name.lower() in device.name.lower():
            return device.path
    known = "; ".join(f"{device.name} ({device.path})" for device in devices)
    raise UsageError(f"no camera is called '{name}': {'use one of ' + known if known else 'attach one'}")


def device_options(name: str) -> tuple[str, dict[str, str]]:
    """Path and libav options of "/dev/video0?size=1280x720&rate=30&format=mjpeg". Raises UsageError for a bad option.

    `format` is one of the driver's: mjpeg, h264, yuyv422, nv12, … What the driver can't do, it replaces by the nearest.
    """
    path, _, query = name.partition("?")
    options = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _OPTIONS:
            raise UsageError(f"{name}: no option '{key}': use {', '.join(_OPTIONS)}")
        option, form, words = _OPTIONS[key]
        if not re.fullmatch(form, value):
            raise UsageError(f"{name}: {key}={value} must be {words}")
        options[option] = value
    return path, options
