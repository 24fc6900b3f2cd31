"""Seeking in a file that has just been opened."""

from __future__ import annotations

from typing import Any

import av

from cliprl.engines import CliprlError
from cliprl.pipeline.sources.decoding.stream_selection import select


def seek_to_key(container: Any, name: str, seconds: float, wanted: int | None = None) -> float:
    """Go to the key frame at or before `seconds` after the beginning of the video; where that is, in seconds.

    `wanted` is the index of the video stream, None for the best.

    Raises CliprlError where the file can't be sought in.
    """
    stream, _ = select(container, name, wanted)
    start = stream.start_time or 0
    target = start + round(seconds / stream.time_base)
    try:
        container.seek(target, stream=stream)
        first = next(container.demux(stream), None)
        container.seek(target, stream=stream)
    except (OSError, av.error.FFmpegError) as error:
        raise CliprlError(f"can't seek in {name} ({error}): play it from its beginning") from None
    if first is None or first.pts is None or not first.is_keyframe or first.pts > target:
        raise CliprlError(f"can't seek in {name}: play it from its beginning")
    return max(float((first.pts - start) * stream.time_base), 0.0)
