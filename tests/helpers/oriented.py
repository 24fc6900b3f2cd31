"""Pictures with four differently coloured corners, stored in each of the eight orientations of EXIF, in any container."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext
from media import Picture, color_of, make_clip
from numpy.typing import NDArray
from PIL import Image

ORIENTATIONS = range(1, 9)
# Top left, top right, bottom left, bottom right.
CORNERS = np.array([(220, 30, 30), (30, 200, 30), (40, 40, 220), (220, 200, 40)], np.uint8)
# What turns the picture that a viewer sees into the one that is stored, by the number of the orientation.
_STORED: dict[int, Callable[[Picture], Picture]] = {
    1: lambda p: p,
    2: np.fliplr,
    3: lambda p: np.rot90(p, 2),
    4: np.flipud,
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: lambda p: np.rot90(p, 3),
}
# libav's display matrix as an angle, counter-clockwise, and a flip left to right after it.
_DISPLAY = {
    1: (0, False),
    2: (0, True),
    3: (180, False),
    4: (180, True),
    5: (270, True),
    6: (270, False),
    7: (90, True),
    8: (90, False),
}


def shown(width: int, height: int) -> Picture:
    """The picture that a viewer is to see, RGB (height, width, 3)."""
    rows, columns = np.arange(height) >= (height + 1) // 2, np.arange(width) >= (width + 1) // 2
    return CORNERS[2 * rows[:, None].astype(int) + columns[None]]


def stored(orientation: int, size: tuple[int, int]) -> Picture:
    """What lies in a file whose viewer sees `shown(*size)`."""
    return np.ascontiguousarray(_STORED[orientation](shown(*size)))


def still(path: Path, orientation: int, size: tuple[int, int], **options: Any) -> Path:
    """Write a picture with EXIF, in the format of the path's suffix."""
    exif = Image.Exif()
    exif[0x112] = orientation
    if path.suffix == ".jpg":
        options = {"quality": 98, "subsampling": 0} | options
    Image.fromarray(stored(orientation, size)).save(path, exif=exif, **options)
    return path


def jpeg_with_exif(orientation: int, size: tuple[int, int]) -> bytes:
    """The bytes of a JPEG with EXIF that tells its orientation and nothing else."""
    memory = io.BytesIO()
    Image.fromarray(stored(orientation, size)).save(memory, format="jpeg", quality=98)
    block = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, 0x112, 3, 1, orientation, 0)
    jpeg = memory.getvalue()
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def mjpeg(path: Path, orientations: Sequence[int], size: tuple[int, int]) -> Path:
    """A video of JPEGs, each with an orientation of its own."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mjpeg", rate=25)
        height, width = stored(orientations[0], size).shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for index, orientation in enumerate(orientations):
            packet = av.Packet(jpeg_with_exif(orientation, size))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, 25)
            packet.duration, packet.is_keyframe = 1, True
            container.mux(packet)
    return path


def displayed(path: Path, orientation: int, size: tuple[int, int]) -> Path:
    """An H.264 video whose container asks for the orientation by a display matrix."""
    image = stored(orientation, size)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        angle, flip = _DISPLAY[orientation]
        stream.set_display_rotation(angle, hflip=flip)
        for index in range(2):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def tagged_by_key_frames(path: Path, orientation: int, size: tuple[int, int]) -> Path:
    """A bare H.264 stream whose key frames tell the orientation, by an SEI message, and the frames between do not."""
    upright = make_clip(
        path.with_suffix(".plain.h264"),
        frames=5,
        size=stored(orientation, size).shape[1::-1],
        options={"g": "3", "bf": "0", "crf": "5"},
        image=lambda index, height, width: stored(orientation, size),
        color=color_of("bt709"),
    )
    angle, flip = _DISPLAY[orientation]
    # rotated counter-clockwise by `rotate` after the flip
    how = f"rotate={-angle % 360 if flip else angle}" + (":flip=horizontal" if flip else "")
    with av.open(str(upright)) as source, av.open(str(path), "w", format="h264") as container:
        stream = source.streams.video[0]
        target = container.add_stream_from_template(stream)
        insert = BitStreamFilterContext(f"h264_metadata=display_orientation=insert:{how}", stream)
        for packet in source.demux(stream):
            for tagged in insert.filter(packet) if packet.size else ():
                tagged.stream = target
                container.mux(tagged)
    return path


def as_players_show(path: Path) -> list[Picture]:
    """Each picture of a video in RGB, with its display matrix applied to it."""
    with av.open(str(path), format="mpegts" if path.suffix == ".ts" else None) as container:
        return [_apply(frame) for frame in container.decode(video=0)]


def _apply(frame: av.VideoFrame) -> Picture:
    image = frame.to_ndarray(format="rgb24")
    side_data: Any = frame.side_data
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            return _transform(image, struct.unpack("=5i", bytes(data)[:20]))
    return image


def _transform(image: Picture, matrix: tuple[int, ...]) -> Picture:
    """Move every pixel to where the matrix puts it: (x, y) goes to (a x + c y, b x + d y)."""
    a, b, _, c, d = (round(value / 65536) for value in matrix)
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    to_x, to_y = a * x + c * y, b * x + d * y
    moved: Picture = np.empty((abs(b) * width + abs(d) * height, abs(a) * width + abs(c) * height, 3), np.uint8)
    moved[to_y - to_y.min(), to_x - to_x.min()] = image
    return moved


def corners(image: NDArray[Any]) -> list[Any]:
    """The pixels a little inside of the four corners, as in `CORNERS`."""
    height, width = image.shape[:2]
    return [image[y, x] for y in (height // 4, height - 1 - height // 4) for x in (width // 4, width - 1 - width // 4)]
