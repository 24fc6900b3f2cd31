"""Removal of the chapter track from a finished MP4 or QuickTime file whose video ended before its chapters."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

# A box header: size and type.
_HEADER = struct.Struct(">I4s")
# The largest index that is read; a day of video has a few MB.
_LARGEST_INDEX = 1 << 30


def remove_chapter_track(path: Path) -> bool:
    """Turn the chapter track of the file into free space, and state the duration of its other tracks. Returns whether it had one.

    Chapters in the list of the file (`chpl`) stay. Raises OSError.
    """
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        found = next((box for box in _file_boxes(file.fileno(), size) if box[0] == b"moov"), None)
        if found is None or found[2] - found[1] > _LARGEST_INDEX:
            return False
        _, start, end = found
        file.seek(start)
        index = bytearray(file.read(end - start))
        if not _remove(index):
            return False
        file.seek(start)
        file.write(index)
    return True


def _file_boxes(handle: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end of the content of each box of the file."""
    at = 0
    while at + 8 <= size:
        header = os.pread(handle, 16, at)
        length, kind = _HEADER.unpack_from(header)
        head = 8
        if length == 1 and len(header) == 16:
            length, head = int.from_bytes(header[8:], "big"), 16
        length = length or size - at
        if length < head:
            return
        yield kind, at + head, min(at + length, size)
        at += length


def _boxes(data: bytearray, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end of the content of each box in `data`, whose boxes have sizes of 32 bits."""
    while start + 8 <= end:
        length, kind = _HEADER.unpack_from(data, start)
        if not 8 <= length <= end - start:
            return
        yield kind, start + 8, start + length
        start += length


def _remove(index: bytearray) -> bool:
    """Remove the chapter track from the content of a `moov` box."""
    tracks = [dict(_named(index, box)) for box in _boxes(index, 0, len(index)) if box[0] == b"trak"]
    wanted = {n for track in tracks for n in _chapter_references(index, track)}
    removed = [track for track in tracks if _track_id(index, track) in wanted]
    for track in removed:
        _free(index, track[b"trak"])
    kept = [track for track in tracks if track not in removed]
    for track in kept:
        if any(_chapter_references(index, track)):
            _free(index, track[b"tref"])
    header = next((box for box in _boxes(index, 0, len(index)) if box[0] == b"mvhd"), None)
    if removed and header is not None:
        at, width = (header[1] + 24, 8) if index[header[1]] else (header[1] + 16, 4)
        longest = max((_duration(index, track) for track in kept), default=0)
        index[at : at + width] = longest.to_bytes(width, "big")
    return bool(removed)


def _named(index: bytearray, track: tuple[bytes, int, int]) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yield the place of a track and of each of its boxes, by their types."""
    yield track[0], track[1:]
    for kind, start, end in _boxes(index, *track[1:]):
        yield kind, (start, end)


def _chapter_references(index: bytearray, track: dict[bytes, tuple[int, int]]) -> list[int]:
    """List the numbers of the tracks that hold the chapters of a track."""
    lists = [box for box in _boxes(index, *track.get(b"tref", (0, 0))) if box[0] == b"chap"]
    return [int.from_bytes(index[at : at + 4], "big") for _, start, end in lists for at in range(start, end, 4)]


def _track_id(index: bytearray, track: dict[bytes, tuple[int, int]]) -> int:
    start = track[b"tkhd"][0]
    at = start + (20 if index[start] else 12)
    return int.from_bytes(index[at : at + 4], "big")


def _duration(index: bytearray, track: dict[bytes, tuple[int, int]]) -> int:
    """Return the duration of a track in the time scale of the file."""
    start = track[b"tkhd"][0]
    at, width = (start + 28, 8) if index[start] else (start + 20, 4)
    return int.from_bytes(index[at : at + width], "big")


def _free(index: bytearray, content: tuple[int, int]) -> None:
    """Let a box be free space."""
    index[content[0] - 4 : content[0]] = b"free"
