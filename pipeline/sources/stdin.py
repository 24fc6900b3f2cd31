"""Standard input as a video file."""

from __future__ import annotations

import os
import stat
import sys

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.sources.video import VideoSource

# The name by which standard input is asked for. A file of that name is "./-".
STDIN = "-"
_DESCRIPTOR = 0


def open_stdin(stream: int | None = None) -> VideoSource:
    """Open the video that comes on standard input: a pipe, or a file that was redirected.

    Raises UsageError where standard input is closed or a terminal, CliprlError where it is empty or no video.
    """
    try:
        mode = os.fstat(_DESCRIPTOR).st_mode
    except OSError:
        raise UsageError("standard input is closed: name a file, or pipe a video into it") from None
    if sys.stdin is not None and sys.stdin.isatty():
        raise UsageError("standard input is a terminal: pipe a video into it, as in: cat video.ts | cliprl-stream -")
    if stat.S_ISREG(mode):  # a file can be sought in, so it is opened as one
        if os.fstat(_DESCRIPTOR).st_size == 0:
            raise CliprlError("standard input is empty: make or copy the file again")
        return VideoSource(STDIN, url=f"/dev/fd/{_DESCRIPTOR}", stream=stream)
    return VideoSource(STDIN, url=f"pipe:{_DESCRIPTOR}", stream=stream)
