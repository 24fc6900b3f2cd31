"""Properties of a file and its streams."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import av
import numpy as np

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.core.frame import Plane
from cliprl.pipeline.sources.decoding.nv12_writer import image_color, is_rgb, plane_array
from cliprl.pipeline.sources.display_matrix import Orientation, OrientationReader, sideways_note
from cliprl.pipeline.sources.errors import redact

# libavcodec's AVFieldOrder: bottom field shown first, coded first or second.
_BOTTOM_FIRST = (3, 4)
_HIGHEST_RATE = 1000
# Samples of 16 bits of which fewer are used are darker than half of what they can be.
_LEAST_BITS = 15
# Looking at each entry of an index takes 2 us; of longer ones the length must do.
_MOST_ENTRIES = 500_000
# The share of a transport stream that may follow the last packet: tables, filling, data.
_REST = 0.1
# libavutil's numbers of the transfer functions of HDR.
_HDR = {16: "PQ", 18: "HLG"}
_HDR_NOTE = (
    "the video is HDR ({}): it is segmented, and shown on the page, without tone mapping; convert it to SDR first"
)
# Bytes that a server states for a stream without an end.
_ENDLESS = 1 << 50
# Bytes of a sample entry of MP4 before its boxes. Matroska: bytes that hold the tracks; ids of elements; what PixelCrop leaves
# out at the left, the top, the right and the bottom.
_SAMPLE_ENTRY, _MATROSKA_HEAD = 78, 1 << 20
_SEGMENT, _TRACKS, _TRACK, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0xE0
_PIXEL_CROP = (0x54CC, 0x54BB, 0x54DD, 0x54AA)

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


def end_note(name: str, before: WriteState | None, container: Any, position: int) -> str:
    """Return a note on a file whose frames have ended: it was written since it had the state `before`, or is not read whole.

    libav gives no packets of streams that begin within MPEG-TS: much of it may follow the last one, which ends at `position`.
    """
    if was_written(name, before):
        return "the file was written while it was read: run again on the finished file"
    rest = 1 - position / before[1] if before and before[1] and container.format.name == "mpegts" else 0.0
    return (
        f"the last {rest:.0%} of the file are left out: they hold other streams than its beginning, as where a recording is "
        "joined to another; split it there"
        if rest > _REST
        else ""
    )


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
            raise UsageError(f"'{path}' is a symbolic link that leads to no file: mend it, or name the file itself")
        raise UsageError(f"'{path}' does not exist: check the name")
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder: name a video file, or write '{path}/*.png' for the images in it")
    if path.is_file() and path.stat().st_size == 0:
        raise CliprlError(f"{path} is empty: make or copy it again")


def depth_note(name: str, image: av.VideoFrame) -> str:
    """Return a note on RGB or gray of 16 bits that uses few of them, such as the values of a sensor of 12 bits as they are."""
    layout = image.format
    if layout.components[0].bits != 16 or not (is_rgb(image) or layout.name.startswith(("gray", "ya"))):
        return ""
    samples = plane_array(image, 0, layout.bits_per_pixel // 8 if len(image.planes) == 1 else 2)
    bits = int(np.ascontiguousarray(samples).view(">u2" if layout.is_big_endian else "<u2").max()).bit_length()
    if not 0 < bits < _LEAST_BITS:
        return ""
    return f"{name} uses {bits} of its 16 bits, and is dark: if it was stored so, scale its values first"


def probe_stream(
    name: str, container: Any, stream: Any, image: av.VideoFrame, context: Any
) -> tuple[dict[str, Any], Crop | None]:
    """The fields of `StreamInfo` for a stream whose first frame is decoded, and the part of its frames that is shown."""
    crop = container_crop(name, container, stream, (image.width, image.height), 4 if image.interlaced_frame else 2)
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
    color = image_color(image, context)
    hdr = _HDR_NOTE.format(_HDR[color.transfer_tag]) if color.transfer_tag in _HDR else ""
    rotation = (OrientationReader().read(image) or Orientation()).rotation
    fields = {
        "name": redact(name),
        "height": crop.height if crop else image.height,
        "width": crop.width if crop else image.width,
        "time_base": Fraction(stream.time_base),
        "rate": rate,
        "frames": stated_frames(container, stream)[1],
        "seconds": seconds,
        "color": color,
        "rotation": rotation,
        "sample_aspect": stream.sample_aspect_ratio or None,
        "interlaced": image.interlaced_frame,
        "bottom_field_first": getattr(context, "field_order", 0) in _BOTTOM_FIRST,  # missing in older versions of PyAV
        "notes": tuple(filter(None, [hdr, depth_note(redact(name), image), sideways_note(rotation)])),
    }
    return fields, crop


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


class Crop(NamedTuple):
    """The part of a frame that is shown; `size` is the width and height of the whole frame.

    Left and top are even, because chroma has half the size.
    """

    left: int
    top: int
    width: int
    height: int
    size: tuple[int, int]

    def of(self, luma: Plane, chroma: Plane) -> tuple[Plane, Plane]:
        """Return the shown part of the planes of a whole frame."""
        bottom, right, rows, columns = self.top + self.height, self.left + self.width, self.top // 2, self.left // 2
        return luma[self.top : bottom, self.left : right], chroma[rows : (bottom + 1) // 2, columns : (right + 1) // 2]


def container_crop(name: str, container: Any, stream: Any, size: tuple[int, int], lines: int = 2) -> Crop | None:
    """Return the part of the frames of a file that `clap` of MP4 and QuickTime, or PixelCrop of Matroska, tells players to show.

    None: the whole. PyAV passes nothing of it on. The top is a multiple of `lines`: of 4 where lines of chroma are of two fields.
    """
    kind = container.format.name
    find = _cut_by_mp4 if "mp4" in kind else _cut_by_matroska if kind.startswith("matroska") else None
    left = top = right = bottom = 0
    if find is not None and os.path.isfile(name):
        with suppress(OSError, LookupError, StopIteration, ArithmeticError, struct.error), open(name, "rb") as file:
            left, top, right, bottom = find(file, stream.index, size)
    is_inside = min(left, top, right, bottom) >= 0
    left, top = left + -left % 2, top + -top % lines
    shown = Crop(left, top, size[0] - left - right, size[1] - top - bottom, size)
    return shown if is_inside and shown[2:4] != size and min(shown[2:4]) > 0 else None


def _cut_by_mp4(file: BinaryIO, index: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Return the pixels that the clean aperture of a track leaves out at the left, the top, the right and the bottom."""
    data = _index_of_mp4(file)
    data = [box for kind, box in _boxes(data) if kind == b"trak"][index]
    for wanted in (b"mdia", b"minf", b"stbl", b"stsd"):
        data = next(box for kind, box in _boxes(data) if kind == wanted)
    entry = next(_boxes(data[8:]))[1]
    aperture = next((box for kind, box in _boxes(entry[_SAMPLE_ENTRY:]) if kind == b"clap"), None)
    if aperture is None:
        return 0, 0, 0, 0
    numbers = struct.unpack_from(">IIIIiIiI", aperture)
    width, height, right, down = (Fraction(numbers[n], numbers[n + 1]) for n in range(0, 8, 2))
    left, top = (size[0] - width) / 2 + right, (size[1] - height) / 2 + down
    return round(left), round(top), round(size[0] - width - left), round(size[1] - height - top)


def _index_of_mp4(file: BinaryIO) -> bytes:
    while True:
        length, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if length == 1:
            (length,), header = struct.unpack(">Q", file.read(8)), 16
        if kind == b"moov":
            return file.read(min(length - header, os.fstat(file.fileno()).st_size))
        if length < header:
            raise LookupError
        file.seek(length - header, os.SEEK_CUR)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if length < 8:
            return
        yield kind, data[at + 8 : at + length]
        at += length


def _cut_by_matroska(file: BinaryIO, index: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Return the pixels that a track leaves out at the left, the top, the right and the bottom."""
    data = file.read(_MATROSKA_HEAD)
    for wanted in (_SEGMENT, _TRACKS):
        data = next(element for kind, element in _elements(data) if kind == wanted)
    track = [element for kind, element in _elements(data) if kind == _TRACK][index]
    video = next(element for kind, element in _elements(track) if kind == _VIDEO)
    stated = {kind: int.from_bytes(element) for kind, element in _elements(video)}
    return tuple(stated.get(kind, 0) for kind in _PIXEL_CROP)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Read EBML elements: an id and a length, whose first byte states how many bytes each takes."""
    at = 0
    while at < len(data):
        numbers = []
        for is_length in (False, True):
            count = 9 - data[at].bit_length()
            number = int.from_bytes(data[at : at + count])
            numbers.append(number & ~(1 << 7 * count) if is_length else number)
            at += count
        yield numbers[0], data[at : at + numbers[1]]
        at += numbers[1]
