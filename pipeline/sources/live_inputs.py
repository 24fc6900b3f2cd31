"""Cameras and network streams: how each kind is opened so that it is quick, and does not hang."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.sources.errors import redact
from cliprl.pipeline.sources.srt import check_srt
from cliprl.pipeline.sources.v4l2_devices import device_options, find_device, list_devices
from cliprl.pipeline.sources.video import VideoSource

CAMERA, SCREEN = "camera:", "screen:"
# Seconds to open, and to wait for each packet.
_TIMEOUT = (10.0, 10.0)
_QUICK = {"fflags": "nobuffer", "analyzeduration": "1000000"}
# Where a packet holds a picture as it comes: see undelayed.py. RTP's hold pieces of one, whose last one libav doesn't tell.
_UNDELAYED = _QUICK | {"fflags": "nobuffer+noparse"}
# An RTSP server tells the format beforehand: there is little to analyse.
_RTSP = _QUICK | {"analyzeduration": "200000", "rtsp_transport": "tcp", "timeout": "5000000"}
# RTSP with its pictures over UDP, by the scheme that other players know it by; libav has an option for it instead.
_RTSP_UDP = "rtspu"
# libav's options by scheme (times in microseconds).
_OPTIONS = {
    "rtsp": _RTSP,
    _RTSP_UDP: _RTSP | {"rtsp_transport": "udp"},
    "rtsps": _RTSP,
    "rtmp": _QUICK,
    "rtp": _QUICK,
    "srt": _UNDELAYED,
    "udp": _UNDELAYED,
    "tcp": _UNDELAYED,
    "http": {"rw_timeout": "10000000"},
    "https": {"rw_timeout": "10000000"},
}
# These may carry a file with an end, which can wait.
_MAY_END = ("http", "https")


def open_url(url: str, stream: int | None = None) -> VideoSource:
    """Open a network stream, and the video stream of index `stream` in it; None: the best.

    Raises UsageError or CliprlError, one line, without the URL's user and password.
    """
    scheme = url.split("://")[0].lower()
    if scheme not in _OPTIONS:
        raise UsageError(f"{redact(url)}: no such kind of address; use {', '.join(_OPTIONS)}")
    check_srt(url)
    _resolve(url)
    live = None if scheme in _MAY_END else True
    if scheme == _RTSP_UDP:
        url = "rtsp" + url[len(_RTSP_UDP) :]
    return VideoSource(url, options=_OPTIONS[scheme], timeout=_TIMEOUT, live=live, stream=stream)


def _resolve(url: str) -> None:
    """Look the host up, because libav tells an unknown name only as an input/output error."""
    try:
        host = urlsplit(url).hostname
        if host:
            socket.getaddrinfo(host, None)
    except socket.gaierror:
        raise CliprlError(f"{redact(url)}: no such host '{host}': check the name and the network") from None
    except ValueError as error:
        raise UsageError(f"{redact(url)} is not an address: {error}") from None


def open_device(name: str) -> VideoSource:
    """Open a camera: "/dev/video0" or "camera:NAME", with "?size=1280x720&rate=30&format=mjpeg" where that is wanted.

    Raises UsageError where there is none, CliprlError where it gives no picture.
    """
    path, options = device_options(name)
    if path.startswith(CAMERA):
        path = find_device(path.removeprefix(CAMERA))
    if not Path(path).exists():
        found = ", ".join(device.path for device in list_devices())
        raise UsageError(f"no such device {path}: {'there are ' + found if found else 'no camera is attached'}")
    return VideoSource(path, format="v4l2", options=_UNDELAYED | options, timeout=_TIMEOUT, live=True)


def open_screen(name: str) -> VideoSource:
    """Capture an X11 screen: "screen:" the one of $DISPLAY, "screen::1.0", with "?size=1280x720&rate=25" for its upper left part.

    Raises UsageError or CliprlError, one line.
    """
    screen, options = device_options(name)
    display = screen.removeprefix(SCREEN) or os.environ.get("DISPLAY", "")
    if not display or "input_format" in options:
        what = (
            "a screen has no format of its own"
            if display
            else "there is no X11 display: set DISPLAY, or write screen::0.0"
        )
        raise UsageError(f"{name}: {what}")
    return VideoSource(display, format="x11grab", options=_QUICK | options, timeout=_TIMEOUT, live=True)


def is_live_name(name: str) -> bool:
    """Whether a name can only be that of a live source (of http it takes a look to know). A file that exists is none."""
    if os.path.isfile(name):
        return False
    if name.startswith(("/dev/video", CAMERA, SCREEN)):
        return True
    scheme = name.split("://")[0].lower() if "://" in name else ""
    return scheme in _OPTIONS and scheme not in _MAY_END
