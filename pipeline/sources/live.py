"""Cameras and network streams: how each kind is opened so that it is quick, and does not hang."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.sources.errors import redact
from cliprl.pipeline.sources.video import VideoSource

# Seconds to open, and to wait for each packet.
_TIMEOUT = (10.0, 10.0)
_QUICK = {"fflags": "nobuffer", "analyzeduration": "1000000"}
# An RTSP server tells the format beforehand: there is little to analyse.
_RTSP = _QUICK | {"analyzeduration": "200000", "rtsp_transport": "tcp", "timeout": "5000000"}
# libav's options by scheme (times in microseconds).
_OPTIONS = {
    "rtsp": _RTSP,
    "rtsps": _RTSP,
    "rtmp": _QUICK,
    "rtp": _QUICK,
    "srt": _QUICK,
    "udp": _QUICK,
    "tcp": _QUICK,
    "http": {"rw_timeout": "10000000"},
    "https": {"rw_timeout": "10000000"},
}
# These may carry a file with an end, which can wait.
_MAY_END = ("http", "https")


def open_url(url: str) -> VideoSource:
    """Open a network stream. Raises UsageError or CliprlError, one line, without the URL's user and password."""
    scheme = url.split("://")[0].lower()
    if scheme not in _OPTIONS:
        raise UsageError(f"{redact(url)}: no such kind of address; use {', '.join(_OPTIONS)}")
    _resolve(url)
    live = None if scheme in _MAY_END else True
    return VideoSource(url, options=_OPTIONS[scheme], timeout=_TIMEOUT, live=live)


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


def open_device(path: str) -> VideoSource:
    """Open a camera, /dev/video0. Raises UsageError where there is none, CliprlError where it gives no picture."""
    if not Path(path).exists():
        found = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*")))
        raise UsageError(f"no such device {path}: {'there are ' + found if found else 'no camera is attached'}")
    return VideoSource(path, format="v4l2", options=_QUICK, timeout=_TIMEOUT, live=True)
