"""Support for SRT, which libav may be built without."""

from __future__ import annotations

from functools import cache

import av

from cliprl.engines import UsageError
from cliprl.pipeline.sources.errors import redact

# An address without a listener: the attempt shows only whether libav knows the protocol.
_PROBE = "srt://127.0.0.1:1?connect_timeout=1"


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
