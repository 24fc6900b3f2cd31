"""Properties of a file and its streams."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.sources.decoding.nv12_writer import image_color
from cliprl.pipeline.sources.display_matrix import Orientation, OrientationReader

# libavcodec's AVFieldOrder: bottom field shown first, coded first or second.
_BOTTOM_FIRST = (3, 4)
_HIGHEST_RATE = 1000
# Looking at each entry of an index takes 2 us; of longer ones the length must do.
_MOST_ENTRIES = 500_000
# Bytes that a server states for a stream without an end.
_ENDLESS = 1 << 50


WriteState = tuple[int, int, int]  # inode, bytes, time of the last change


def write_state(name: str) -> WriteState | None:
    """Return the state of a file; None for what is no file."""
    with suppress(OSError):
        if stat.S_ISREG((found := os.stat(name)).st_mode):
            return found.st_ino, found.st_size, found.st_mtime_ns
    return None


def was_written(name: str, before: WriteState | None) -> bool:
    """Return whether a file has been written since it had the state `before`; one that replaced it does not count."""
    now = write_state(name) if before else None
    return before is not None and now is not None and before[0] == now[0] and before != now


def check_file(path: Path) -> None:
    """Raise UsageError, before libav opens it, if `path` can't be a video file."""
    try:
        exists = path.exists()
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise UsageError(
            f"can't read '{path}' ({error.strerror}): check its name and the permissions of its folder"
        ) from None
    if not exists:
        if path.is_symlink():
            raise UsageError(f"{path} is a symbolic link that leads to no file: mend it, or name the file itself")
        raise UsageError(f"{path} does not exist: check the name")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a video file, or write {path}/*.png for the images in it")
    if path.is_file() and path.stat().st_size == 0:
        raise CliprlError(f"{path} is empty: make or copy it again")


def probe_stream(name: str, container: Any, stream: Any, image: av.VideoFrame, context: Any) -> dict[str, Any]:
    """The fields of `StreamInfo` for a stream whose first frame is decoded."""
    seconds: float | None = None
    if stream.duration is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / av.time_base
    rates = [stream.average_rate, stream.guessed_rate, stream.base_rate]
    if image.pts is None:  # a bare stream's average is libav's guess; the codec knows better
        rates[:2] = rates[1::-1]
    # Of some containers, such as DV, libav takes the ticks of the clock for frames.
    rate = next((rate for rate in rates if rate and rate <= _HIGHEST_RATE), None) or next(filter(None, rates), None)
    return {
        "name": name,
        "height": image.height,
        "width": image.width,
        "time_base": Fraction(stream.time_base),
        "rate": rate,
        "frames": stated_frames(container, stream)[1],
        "seconds": seconds,
        "color": image_color(image, context),
        "rotation": (OrientationReader().read(image) or Orientation()).rotation,
        "sample_aspect": stream.sample_aspect_ratio or None,
        "interlaced": image.interlaced_frame,
        "bottom_field_first": getattr(context, "field_order", 0) in _BOTTOM_FIRST,  # missing in older versions of PyAV
    }


def has_end(container: Any, stream: Any) -> bool:
    """Whether an input over a network is a stored one: it states its duration, or its server the length of the file."""
    if stream.duration is not None or container.duration is not None:
        return True
    is_playlist = container.format.name.startswith(("hls", "dash"))  # its length is that of the list
    return not is_playlist and 0 < container.size < _ENDLESS


def stated_frames(container: Any, stream: Any) -> tuple[int | None, int | None]:
    """How many packets and how many frames a container states for a stream; None if it does not.

    An edit list of MP4 or QuickTime leaves frames out: whole groups give no packet, others are decoded and not shown.
    AVI counts the periods of time, of which a frame may last several: a frame that was not recorded is an empty chunk, which the
    index leaves out.
    """
    stated: int | None = stream.frames or None
    kind = container.format.name[:3]
    count = len(stream.index_entries) if stated and kind in ("mov", "avi") else 0
    if not count:
        return stated, stated
    entries = stream.index_entries
    if kind == "avi":
        last = entries[count - 1].timestamp
        packets = count if last + max(last // max(count - 1, 1), 1) >= stated else stated
        return packets, packets
    hidden = sum(entry.is_discard for entry in entries) if count <= _MOST_ENTRIES else 0
    return count, count - hidden
