"""Seeking in a file that has just been opened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av

from cliprl.engines import CliprlError
from cliprl.pipeline.sources.decoding.stream_selection import select
from cliprl.pipeline.sources.decoding.timeline import WITHOUT_PRESENTATION_TIMES

# Seconds before the requested position at which the search for a key frame starts, in a container without an index.
_STEPS = (0.0, 1.0, 4.0, 16.0, 64.0)
# Ticks before and after a key frame's decoding time at which a seek is tried: containers round differently.
_OFFSETS = (0, -1, 1)


def seek_to_key(container: Any, name: str, seconds: float, wanted: int | None = None) -> float:
    """Seek to the key frame at or before `seconds` after the start of the video; return its position in seconds.

    `wanted` is the index of the video stream, None for the best. A container without an index, such as MPEG-TS, is searched
    backwards from the position.

    Raises CliprlError if the file can't be sought in.
    """
    stream, _ = select(container, name, wanted)
    start = stream.start_time or 0
    target = start + round(seconds / stream.time_base)
    try:
        for position in _positions(container, stream, start, target):
            container.seek(position, stream=stream)
            first = next(container.demux(stream), None)
            shown = None if first is None or not first.is_keyframe else _shown(container, first)
            if shown is not None and shown <= target:
                container.seek(position, stream=stream)
                return max(float((shown - start) * stream.time_base), 0.0)
    except (OSError, av.error.FFmpegError) as error:
        raise CliprlError(f"can't seek in {name} ({error}): play it from its beginning") from None
    raise CliprlError(f"can't seek in {name}: play it from its beginning")


def _positions(container: Any, stream: Any, start: int, target: int) -> Iterator[int]:
    """Yield timestamps at which a seek may lead to a key frame before `target`: itself, then those of key frames found."""
    yield target
    for step in _STEPS:
        position = max(target - round(step / stream.time_base), start)
        key = _last_key(container, stream, position, target)
        if key is not None:
            yield from (key + offset for offset in _OFFSETS)
        if position == start:
            return


def _last_key(container: Any, stream: Any, position: int, target: int) -> int | None:
    """Return the decoding time of the last key frame from `position` that is displayed at or before `target`."""
    container.seek(position, stream=stream)
    key = None
    for packet in container.demux(stream):
        if packet.dts is None or packet.dts > target:
            break
        shown = _shown(container, packet)
        if packet.is_keyframe and shown is not None and shown <= target:
            key = int(packet.dts)
    return key


def _shown(container: Any, packet: Any) -> int | None:
    """Return the presentation time of a key frame, None if it has none."""
    time: int | None = packet.dts if container.format.name in WITHOUT_PRESENTATION_TIMES else packet.pts
    return time
