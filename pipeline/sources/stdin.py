"""Standard input as a source."""

from __future__ import annotations

import os
import stat
import sys

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.sources.registry import SourceOptions, register_source
from cliprl.pipeline.sources.video import VideoSource

# The name of standard input. A file of that name is "./-".
STDIN = "-"
_DESCRIPTOR = 0


def is_stdin(name: str) -> bool:
    """Whether an input is standard input. A file of the same name takes precedence."""
    return name == STDIN and not os.path.isfile(name)


@register_source(shown=STDIN, matches=is_stdin, help="standard input", takes_stream=True, work="reading standard input")
def open_stdin(name: str, options: SourceOptions) -> VideoSource:
    """Open the video on standard input: a pipe, or a redirected file.

    Raises UsageError if standard input is closed or a terminal, CliprlError if it is empty or not a video.
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
        return VideoSource(STDIN, url=f"/dev/fd/{_DESCRIPTOR}", stream=options.stream)
    return VideoSource(STDIN, url=f"pipe:{_DESCRIPTOR}", stream=options.stream)
