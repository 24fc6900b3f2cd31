"""Checks of network addresses: the port, and SRT, which libav may be built without."""

from __future__ import annotations

import re
from functools import cache

import av

from cliprl.engines import UsageError
from cliprl.pipeline.sources.errors import redact

# An address without a listener: the attempt shows only whether libav knows the protocol.
_PROBE = "srt://127.0.0.1:1?connect_timeout=1"
# Schemes without a default port.
_NEED_PORT = ("udp", "srt", "tcp", "rtp")
# The remedy where a password is taken for a host or a port.
ESCAPES = "in a user or password write / as %2F, ? as %3F, # as %23 and @ as %40"
_AUTHORITY_END = re.compile(r"[/?#]")


def check_port(url: str) -> None:
    """Raise UsageError if the port in a URL is not a number of 1 to 65535, or is missing and has no default.

    libav does not check it: a port out of range is cut to 16 bits.
    """
    scheme, _, rest = url.partition("://")
    authority = _AUTHORITY_END.split(rest, maxsplit=1)[0]
    host = authority.rpartition("@")[2]
    _, colon, port = host.rpartition("]")[2].partition(":")
    valid = port.isascii() and port.isdecimal() and 0 < int(port) <= 65535
    if not valid and colon and "@" in rest[len(authority) :]:
        raise UsageError(f"{redact(url)} has no port of 1 to 65535: {ESCAPES}")
    if not valid and (colon or scheme.lower() in _NEED_PORT):
        raise UsageError(f"{redact(url)} has no port of 1 to 65535: write {scheme}://HOST:PORT")


@cache
def has_srt() -> bool:
    """Whether this libav supports SRT; that of PyAV's wheels does not."""
    try:
        av.open(_PROBE, timeout=0.1).close()
    except av.error.ProtocolNotFoundError:
        return False
    except (OSError, ValueError, av.FFmpegError):
        return True
    return True


def check_srt(url: str) -> None:
    """Raise UsageError for an SRT address where there is no SRT; any other address is fine."""
    if url.lower().startswith("srt://") and not has_srt():
        raise UsageError(
            f"{redact(url)}: this libav has no SRT (PyAV's wheels leave it out): pass it on as udp://127.0.0.1:5000 with "
            "srt-live-transmit, or build PyAV against a libav with libsrt"
        )
