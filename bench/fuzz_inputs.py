"""Seed files for the fuzz test, made on the spot, and random mutations of them: bytes, packets and tags."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any

import av
import numpy as np

SIZE, FRAMES, RATE, SOUND_RATE = (64, 48), 8, 25, 48000
TAGS = {"title": "Cholecystectomy, part 1", "comment": "a comment that is long enough to be mutated in its middle"}


@dataclass(frozen=True, slots=True)
class Seed:
    """One kind of file: its suffix and libav's names of container, codec, pixel format and, if any, sound codec."""

    suffix: str
    container: str
    video: str
    pixels: str
    audio: str | None = None


SEEDS = (
    Seed("mp4", "mp4", "libx264", "yuv420p", "aac"),
    Seed("mov", "mov", "mjpeg", "yuvj420p", "pcm_s16le"),
    Seed("mkv", "matroska", "libx265", "yuv420p", "libopus"),
    Seed("ts", "mpegts", "mpeg2video", "yuv420p", "mp2"),
    Seed("m2ts", "mpegts", "libx264", "yuv420p", "ac3"),
    Seed("avi", "avi", "mpeg4", "yuv420p", "libmp3lame"),
    Seed("flv", "flv", "libx264", "yuv420p", "aac"),
    Seed("webm", "webm", "libvpx-vp9", "yuv420p", "libopus"),
    Seed("mpg", "mpeg", "mpeg1video", "yuv420p", "mp2"),
    Seed("nut", "nut", "ffv1", "yuv422p", "flac"),
    Seed("png", "image2", "png", "rgb24"),
    Seed("jpg", "image2", "mjpeg", "yuvj444p"),
)


def make_seed(seed: Seed) -> bytes:
    """The bytes of a whole file of this kind: a few small moving frames, with sound and tags where the container takes them."""
    frames = [_frame(index, seed.pixels) for index in range(FRAMES)]
    if seed.container == "image2":
        return _still(seed, frames[0])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=seed.container) as output:
        output.metadata.update(TAGS)
        video: Any = output.add_stream(seed.video, rate=RATE)
        video.width, video.height, video.pix_fmt, video.gop_size = *SIZE, seed.pixels, 4
        if seed.video == "libx265":
            video.options = {"x265-params": "log-level=none"}
        audio: Any = output.add_stream(seed.audio, rate=SOUND_RATE) if seed.audio else None
        sound = _sound(audio) if audio is not None else []
        for frame in frames:
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        if audio is not None:
            for samples in sound:
                output.mux(audio.encode(samples))
            output.mux(audio.encode(None))
    return buffer.getvalue()


def _still(seed: Seed, frame: av.VideoFrame) -> bytes:
    encoder: Any = av.CodecContext.create(seed.video, "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = *SIZE, seed.pixels, Fraction(1, RATE)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _frame(index: int, pixels: str) -> av.VideoFrame:
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    rgb = np.stack([(rows * a + columns * b + 9 * index) % 256 for a, b in ((3, 1), (1, 4), (2, 2))], axis=-1)
    frame = av.VideoFrame.from_ndarray(rgb.astype(np.uint8), "rgb24").reformat(format=pixels)
    frame.pts, frame.time_base = index, Fraction(1, RATE)
    return frame


def _sound(stream: Any) -> list[av.AudioFrame]:
    context = stream.codec_context
    context.layout = "stereo"
    context.open()
    size = context.frame_size or 1024
    resampler = av.AudioResampler(context.format, context.layout, SOUND_RATE, frame_size=size)
    count = FRAMES * SOUND_RATE // RATE
    tone = (np.sin(np.arange(count) / 20) * 8000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(np.repeat(tone, 2)[None], format="s16", layout="stereo")
    frame.sample_rate, frame.pts = SOUND_RATE, 0
    return list(resampler.resample(frame))


def mutate(data: bytes, random: Random) -> tuple[str, bytes]:
    """What was done, and the mutated bytes. The same generator state gives the same file."""
    name = random.choice(list(_MUTATIONS))
    return name, _MUTATIONS[name](bytearray(data), random)


def _header(data: bytearray, random: Random) -> bytes:
    """Change bytes near the beginning, where containers state sizes, codecs and counts."""
    for _ in range(random.randint(1, 8)):
        data[random.randrange(min(len(data), 1024))] = random.choice((0, 0xFF, 0x80, random.randrange(256)))
    return bytes(data)


def _end(data: bytearray, random: Random) -> bytes:
    """Change bytes near the end, where an MP4 and an AVI keep their index."""
    for _ in range(random.randint(1, 8)):
        data[-random.randint(1, min(len(data), 4096))] = random.randrange(256)
    return bytes(data)


def _bits(data: bytearray, random: Random) -> bytes:
    """Flip single bits anywhere."""
    for _ in range(random.randint(1, max(len(data) // 500, 2))):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(data)


def _cut(data: bytearray, random: Random) -> bytes:
    """Leave out the end, the beginning or a piece."""
    first, last = sorted((random.randrange(len(data)), random.randrange(len(data))))
    return bytes(random.choice((data[:first], data[first:], data[:first] + data[last:])))


def _repeat(data: bytearray, random: Random) -> bytes:
    """Repeat a piece, or the whole file, as joined recordings are."""
    first, last = sorted((random.randrange(len(data)), random.randrange(len(data))))
    return bytes(random.choice((data + data, data[:last] + data[first:last] + data[last:])))


def _blank(data: bytearray, random: Random) -> bytes:
    """Blank a piece, as a bad sector does."""
    first = random.randrange(len(data))
    last = min(first + random.randint(1, 4096), len(data))
    data[first:last] = bytes([random.choice((0, 0xFF))]) * (last - first)
    return bytes(data)


def _number(data: bytearray, random: Random) -> bytes:
    """Write an extreme 32-bit or 64-bit number somewhere in the first half: a size, a count or a time."""
    size = random.choice((4, 8))
    value = random.choice((0, 1, (1 << 8 * size) - 1, 1 << (8 * size - 1), (1 << (8 * size - 1)) - 1))
    at = random.randrange(max(len(data) // 2, 1))
    data[at : at + size] = value.to_bytes(size, random.choice(("big", "little")))
    return bytes(data)


def _tags(data: bytearray, random: Random) -> bytes:
    """Put bytes that are no UTF-8, control characters or markup into a tag."""
    text = next(tag.encode() for tag in random.sample(list(TAGS.values()), len(TAGS)))
    junk = random.choice((b"\xff\xfe\xe9", b"\x00\x00\x00", b"\xed\xa0\x80", b"</x>\n\x1b[2J", bytes(range(128, 160))))
    at = data.find(text)
    if at < 0:
        return _header(data, random)
    data[at : at + len(junk)] = junk
    return bytes(data)


def _packets(data: bytearray, random: Random) -> bytes:
    """Write the file anew with packets lost, doubled, cut, swapped or moved in time; in bytes where it can't be read so."""
    try:
        return _remuxed(bytes(data), random)
    except (av.FFmpegError, ValueError, OverflowError):
        return _bits(data, random)


def _remuxed(data: bytes, random: Random) -> bytes:
    buffer = io.BytesIO()
    source: Any = av.open(io.BytesIO(data))
    with source:
        name = source.format.name.split(",")[0]
        with av.open(buffer, "w", format={"mov": "mp4"}.get(name, name)) as output:
            copies = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
            for packet in source.demux():
                if packet.dts is None:
                    continue
                for _ in range(random.choice((1, 1, 1, 1, 0, 2))):
                    if random.random() < 0.2:
                        shift = random.choice((-3, 50, 10**6, -(10**9)))
                        packet.dts += shift
                        packet.pts = packet.pts + shift if packet.pts is not None else None
                    packet.stream = copies[packet.stream.index] if packet.stream.container is source else packet.stream
                    output.mux_one(packet)
    return buffer.getvalue()


_MUTATIONS: dict[str, Callable[[bytearray, Random], bytes]] = {
    "header": _header,
    "end": _end,
    "bits": _bits,
    "cut": _cut,
    "repeat": _repeat,
    "blank": _blank,
    "number": _number,
    "tags": _tags,
    "packets": _packets,
}
