"""The part of the frames that a container tells players to show."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import decode_all, decoded_planes, make_clip
from oriented import displayed

from cliprl.pipeline import OutputSpec, open_sink, open_source
from cliprl.pipeline.sources import probe

WIDTH, HEIGHT = 96, 64
# Left, top, width and height of what is shown.
PART = (10, 6, 70, 50)
PARENTS = (b"avc1", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov")


def add_aperture(path: Path, *numbers: int) -> Path:
    """Put `clap` behind the settings of the only H.264 track; `moov` is the last box of the file."""
    data = bytearray(path.read_bytes())
    index = data.rindex(b"moov")
    at = data.index(b"avcC", index) - 4
    data[at:at] = struct.pack(">I4s8i", 40, b"clap", *numbers)
    for kind in PARENTS:
        place = data.index(kind, index) - 4
        struct.pack_into(">I", data, place, 40 + struct.unpack_from(">I", data, place)[0])
    path.write_bytes(data)
    return path


def clean_aperture(path: Path) -> Path:
    left, top, width, height = PART
    middle = [
        Fraction(2 * start + length - whole, 2)
        for start, length, whole in ((left, width, WIDTH), (top, height, HEIGHT))
    ]
    return add_aperture(path, width, 1, height, 1, *(n for value in middle for n in value.as_integer_ratio()))


def pixel_crop(path: Path) -> Path:
    """Put PixelCrop into the Video element of a Matroska file, over elements behind it that state defaults and fill space."""
    data = bytearray(path.read_bytes())
    sizes = bytes.fromhex("b08160ba8140")
    at = data.index(sizes) - 2
    end = data.index(bytes.fromhex("ec0100000000000002"), at) + 11
    left, top, width, height = PART
    cut = (left, top, WIDTH - left - width, HEIGHT - top - height)
    video = sizes + b"".join(
        bytes((0x54, kind, 0x81, n)) for kind, n in zip((0xCC, 0xBB, 0xDD, 0xAA), cut, strict=True)
    )
    rest = end - at - 2 - len(video)
    data[at:end] = bytes((0xE0, 0x80 | len(video))) + video + bytes((0xEC, 0x80 | rest - 2)) + bytes(rest - 2)
    path.write_bytes(data)
    return path


CROPPED: dict[str, Callable[[Path], Path]] = {"mp4": clean_aperture, "mov": clean_aperture, "mkv": pixel_crop}


@pytest.mark.parametrize("suffix", CROPPED)
def test_frames_are_cropped_as_players_do(suffix: str, tmp_path: Path) -> None:
    clip = CROPPED[suffix](make_clip(tmp_path / f"a.{suffix}", frames=3, size=(WIDTH, HEIGHT)))
    left, top, width, height = PART
    with open_source(clip) as source:
        assert (source.info.width, source.info.height) == (width, height)
        with open_sink(tmp_path / "out.mp4", OutputSpec(source.info, ())) as sink:
            for frame, image in zip(source, decode_all(clip), strict=True):
                luma, chroma = decoded_planes(image)
                assert np.array_equal(frame.luma, luma[top : top + height, left : left + width])
                assert np.array_equal(frame.chroma, chroma[top // 2 :][: height // 2, left // 2 :][:, : width // 2])
                sink.write(frame, None)
        assert source.info.notes == ()
    assert {(image.width, image.height) for image in decode_all(tmp_path / "out.mp4")} == {(width, height)}


@pytest.mark.parametrize("orientation", [2, 6])
def test_cropped_frames_are_mirrored_and_turned(orientation: int, tmp_path: Path) -> None:
    """The crop is that of the stored frame."""
    clip = clean_aperture(
        displayed(tmp_path / "a.mp4", orientation, (WIDTH, HEIGHT) if orientation == 2 else (HEIGHT, WIDTH))
    )
    left, top, width, height = PART
    expected = decoded_planes(decode_all(clip)[0])[0][top : top + height, left : left + width]
    with open_source(clip) as source:
        frame = source.read()
        assert frame is not None
        assert frame.rotation == (0 if orientation == 2 else 270)
        assert np.array_equal(frame.luma, np.fliplr(expected) if orientation == 2 else expected)


@pytest.mark.parametrize(
    "numbers",
    [
        (WIDTH, 1, HEIGHT, 1, 0, 1, 0, 1),
        (0, 1, 0, 1, 0, 1, 0, 1),
        (50, 0, 50, 0, 0, 0, 0, 0),
        (960, 1, 640, 1, 0, 1, 0, 1),
    ],
    ids=["whole", "nothing", "no number", "too large"],
)
def test_an_aperture_without_a_part_is_ignored(numbers: tuple[int, ...], tmp_path: Path) -> None:
    clip = add_aperture(make_clip(tmp_path / "a.mp4", frames=1, size=(WIDTH, HEIGHT)), *numbers)
    with open_source(clip) as source:
        assert (source.info.width, source.info.height) == (WIDTH, HEIGHT)
        assert len(list(source)) == 1


def test_tracks_that_are_not_found_are_shown_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = pixel_crop(make_clip(tmp_path / "a.mkv", frames=1, size=(WIDTH, HEIGHT)))
    monkeypatch.setattr(probe, "_MATROSKA_HEAD", 60)
    with open_source(clip) as source:
        assert (source.info.width, source.info.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(("lines", "top"), [(2, 6), (4, 8)])
def test_a_crop_keeps_the_order_of_fields(lines: int, top: int, tmp_path: Path) -> None:
    clip = clean_aperture(make_clip(tmp_path / "a.mp4", frames=1, size=(WIDTH, HEIGHT)))
    with av.open(clip) as container:
        crop = probe.container_crop(str(clip), container, container.streams.video[0], (WIDTH, HEIGHT), lines)
    assert crop is not None
    assert (crop.top, crop.top + crop.height) == (top, 56)
