"""Makes the odd clips that tests need: any codec, pixel format, timing, rotation, colour tag; and ways to damage them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.color import ColorSpace, rgb_to_yuv, yuv_to_rgb_matrix
from cliprl.pipeline.core.frame import Frame

Picture = NDArray[np.uint8]
HIGH, LOW = 235, 16
BAR_COLORS = np.array([(r, g, b) for g in (HIGH, LOW) for r in (HIGH, LOW) for b in (HIGH, LOW)], np.uint8)
# libavutil's (colour space, primaries, transfer) numbers of each matrix.
TAGS = {"bt601": (6, 6, 6), "bt709": (1, 1, 1), "bt2020": (9, 9, 14)}


def bars(index: int, height: int, width: int) -> Picture:
    """Eight vertical colour bars, RGB; the same in every frame."""
    columns = np.minimum(np.arange(width) * len(BAR_COLORS) // width, len(BAR_COLORS) - 1)
    return np.broadcast_to(BAR_COLORS[columns], (height, width, 3)).copy()


def moving(index: int, height: int, width: int) -> Picture:
    """A smooth texture that moves, with a square that jumps: every frame differs from every other."""
    rows, columns = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin((rows * a + columns * b + 5 * index) / 9) for a, b in ((1, 2), (2, -1), (-1, 1))]
    rgb = np.stack(waves, axis=-1).astype(np.uint8)
    top, left = 7 * index % max(height - 8, 1), 11 * index % max(width - 8, 1)
    rgb[top : top + 8, left : left + 8] = (255, 220, index % 256)
    return rgb


def color_of(matrix: str, full_range: bool = False) -> ColorSpace:
    """A colour whose tags all say what it is."""
    space, primaries, transfer = TAGS[matrix]
    return ColorSpace(matrix, full_range, space, 2 if full_range else 1, primaries, transfer)


def video_frame(rgb: Picture, pix_fmt: str = "yuv420p", color: ColorSpace | None = None) -> av.VideoFrame:
    """An RGB picture (H, W, 3) as a libav frame. Y'CbCr is computed here, not by libav, and subsampled by box means."""
    if "yuv" not in pix_fmt and pix_fmt != "nv12" and "gray" not in pix_fmt:
        return av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pix_fmt)
    yuv = rgb_to_yuv(rgb, color or ColorSpace())
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], pix_fmt)
    components = [yuv[..., i] for i in range(3)]
    if len(frame.planes) > 1:
        components[1:] = [_shrink(c, frame.format.components[1]) for c in components[1:]]
    planes = [components[0], np.stack(components[1:], axis=-1)] if pix_fmt == "nv12" else components
    shift = frame.format.components[0].bits - 8
    for plane, values in zip(frame.planes, planes, strict=False):
        _fill(plane, values.astype(np.uint16 if shift else np.uint8) << shift)
    return frame


def _shrink(values: Picture, component: Any) -> Picture:
    """Box means onto the size of a chroma component, the last line or column repeated where the size is odd."""
    tall, wide = -(-len(values) // component.height), -(-values.shape[1] // component.width)
    rows, columns = component.height * tall - len(values), component.width * wide - values.shape[1]
    padded = np.pad(values, ((0, rows), (0, columns)), mode="edge").astype(np.float64)
    means = padded.reshape(component.height, tall, component.width, wide).mean(axis=(1, 3))
    return np.rint(means).astype(np.uint8)


def _fill(plane: Any, values: NDArray[Any]) -> None:
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    data = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
    rows[: len(data), : data.shape[1]] = data


def make_clip(
    path: Path,
    *,
    frames: int = 12,
    size: tuple[int, int] = (96, 64),
    rate: Fraction | int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    image: Callable[[int, int, int], Picture] = moving,
    color: ColorSpace | None = None,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int = 0,
    sample_aspect: Fraction | None = None,
    audio: bool = False,
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    format: str | None = None,
) -> Path:
    """Write a clip of `size` (width, height); `image(index, height, width)` gives each frame in RGB.

    `pts` counts in `time_base` (1/rate by default). `color` is what the pixels are made by, and its tags are written.
    Returns the path.
    """
    width, height = size
    with av.open(str(path), "w", format=format, options=dict(container_options or {})) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(rate), options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base = time_base or 1 / Fraction(rate)
        if sample_aspect:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        if color:
            _tag(stream.codec_context, color)
        if rotation:
            stream.set_display_rotation(rotation)
        sound: Any = container.add_stream("aac", rate=48000, layout="mono") if audio else None
        for index in range(frames):
            frame = video_frame(image(index, height, width), pix_fmt, color)
            frame.pts = pts[index] if pts else index
            frame.time_base = stream.codec_context.time_base
            if color:
                frame.colorspace, frame.color_range = color.space_tag, color.range_tag
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound:
            _hum(container, sound, float(frames / Fraction(rate)))
    return path


def _tag(context: Any, color: ColorSpace) -> None:
    context.colorspace, context.color_range = color.space_tag, color.range_tag
    context.color_primaries, context.color_trc = color.primaries_tag, color.transfer_tag


def _hum(container: Any, stream: Any, seconds: float) -> None:
    """A 440 Hz tone of `seconds`."""
    samples = np.sin(np.arange(int(seconds * 48000)) * (2 * np.pi * 440 / 48000)).astype(np.float32)[None]
    for start in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, start : start + 1024]), "fltp", "mono")
        frame.sample_rate, frame.pts = 48000, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def make_audio(path: Path, seconds: float = 0.2) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as container:
        _hum(container, container.add_stream("aac", rate=48000, layout="mono"), seconds)
    return path


def cut(path: Path, fraction: float, to: Path) -> Path:
    """Copy the first `fraction` of a file's bytes."""
    data = path.read_bytes()
    to.write_bytes(data[: int(len(data) * fraction)])
    return to


def scribble(path: Path, fraction: float, to: Path, length: int = 400, seed: int = 0) -> Path:
    """Copy a file with `length` random bytes written over it from `fraction` of its size on."""
    data = bytearray(path.read_bytes())
    start = int(len(data) * fraction)
    data[start : start + length] = np.random.default_rng(seed).bytes(length)
    to.write_bytes(data)
    return to


def decode_all(path: Path | str) -> list[av.VideoFrame]:
    """Every frame as PyAV itself decodes it: what a source is measured against."""
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def decoded_planes(image: av.VideoFrame) -> tuple[Picture, Picture]:
    """PyAV's own copy of a yuv420p picture, as NV12 planes."""
    packed = image.to_ndarray().ravel()
    height, width = image.height, image.width
    luma, chroma = packed[: height * width].reshape(height, width), packed[height * width :]
    return luma, np.stack(np.split(chroma, 2), axis=-1).reshape(height // 2, width // 2, 2)


def assert_same(frame: Frame, image: av.VideoFrame) -> None:
    luma, chroma = decoded_planes(image)
    assert frame.pts == image.pts
    np.testing.assert_array_equal(frame.luma, luma)
    np.testing.assert_array_equal(frame.chroma, chroma)


def to_rgb(frame: Frame) -> np.ndarray:
    """Planes back to RGB in floating point, chroma repeated."""
    chroma = frame.chroma.repeat(2, axis=0).repeat(2, axis=1)[: frame.height, : frame.width]
    matrix, offset = yuv_to_rgb_matrix(frame.color.matrix, frame.color.full_range)
    return np.clip(np.dstack([frame.luma, chroma]) @ matrix.T + offset, 0, 255)


def bar_error(frame: Frame) -> float:
    """The largest error in the middles of the eight colour bars, in steps of 255."""
    middles = (np.arange(8) * 2 + 1) * frame.width // 16
    wanted = bars(0, frame.height, frame.width)[:, middles].astype(float)
    return float(np.abs(to_rgb(frame)[:, middles] - wanted).max())
