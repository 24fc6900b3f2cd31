"""NVENC for live outputs, whose frames lie in host memory: in a separate process, so that no frame waits for a GPU here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from mmap import mmap
from types import SimpleNamespace
from typing import Any, NamedTuple

import av
import numpy as np
from av.packet import Packet

from cliprl.engines.errors import CliprlError, line_of
from cliprl.pipeline.core.child_process import SHARED_BYTES, planes_in
from cliprl.pipeline.core.frame import Frame, Plane
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.cuda.codecs import nvenc
from cliprl.pipeline.cuda.codecs.codec_process import CodecProcess, WorkFactory, libav_errors
from cliprl.pipeline.sinks.video.encoder import COPIED_SETTINGS, VideoEncoder
from cliprl.pipeline.sinks.video.live_encoding import HardwareEncoderError, HardwareNotReadyError, add_encoded_stream

CODEC = "h264_nvenc"
# Size of the frame with which the process tries the encoder before it is ready.
_TRIAL = (144, 256)
# Seconds that a frame may take; opening may take twice as long.
NVENC_SECONDS = 1.0


class EncodedPacket(NamedTuple):
    """A packet on its way out of the process; times in the encoder's time base."""

    data: bytes
    pts: int | None
    dts: int | None
    duration: int
    is_keyframe: bool


@dataclass(frozen=True, slots=True)
class EncoderSetup:
    """Attributes of the encoder's context, by name."""

    settings: dict[str, Any]


class HostFrameEncoder:
    """Encodes NV12 frames of the shared memory, one for each (time, duration); None flushes and closes. A `Work`, in the process.

    An `EncoderSetup` opens the encoder anew.
    """

    def __init__(self, codec: str, memory: mmap) -> None:
        libav_errors()
        self._codec = codec
        self._context: Any = None
        height, width = _TRIAL
        trial = {"width": width, "height": height, "pix_fmt": "nv12", "time_base": Fraction(1, 25)}
        self._open(trial | {"framerate": Fraction(25)})
        self._encode(av.VideoFrame(width, height, "nv12"), 0, 1)
        self._context = None  # closed, so that it holds no session and no memory of the GPU until it is needed

    def __call__(self, message: Any, memory: mmap) -> list[EncodedPacket]:
        """Answer one message."""
        if isinstance(message, EncoderSetup):
            self._open(message.settings)
            return []
        if message is None:
            rest, self._context = self._encode(None), None
            return rest
        height, width = self._context.height, self._context.width
        pixels = np.frombuffer(memory, np.uint8, height * width * 3 // 2).reshape(-1, width)
        return self._encode(av.VideoFrame.from_numpy_buffer(pixels, format="nv12"), *message)

    def _open(self, settings: dict[str, Any]) -> None:
        self._context = av.CodecContext.create(self._codec, "w")
        for name, value in settings.items():
            setattr(self._context, name, value)

    def _encode(self, image: av.VideoFrame | None, pts: int = 0, duration: int = 0) -> list[EncodedPacket]:
        if image is not None:
            image.pts, image.duration, image.time_base = pts, duration, self._context.time_base
        try:
            packets = self._context.encode(image)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise CliprlError(nvenc.short_reason(error)) from error
        return [EncodedPacket(bytes(p), p.pts, p.dts, p.duration or 0, p.is_keyframe) for p in packets]


class RemoteEncoder(VideoEncoder):
    """A `VideoEncoder` whose codec works in a `CodecProcess`. Every frame gives its packet at once.

    The first frame is encoded on opening, because the stream's parameters are read from its packet. Raises
    HardwareEncoderError; the encoder gives no further packet then.
    """

    def __init__(
        self,
        process: CodecProcess,
        first: Frame,
        info: StreamInfo,
        options: Callable[[float, str], dict[str, str]],
        *,
        crf: float,
        preset: str,
        key_seconds: float,
        seconds: float,
    ) -> None:
        self._process, self._make_options, self._seconds = process, options, seconds
        # Holds the settings, and encodes nothing.
        template: Any = av.CodecContext.create("libx264", "w")
        holder = SimpleNamespace(codec_context=template, set_display_rotation=lambda _: None)
        super().__init__(holder, first, info, crf=crf, preset=preset, threads=1)
        self._luma, self._chroma = planes_in(process.memory, *self._size)
        template.gop_size = max(round(float(template.framerate) * key_seconds), 1)
        settings = {name: value for name in (*COPIED_SETTINGS, "gop_size") if (value := getattr(template, name))}
        process.call(EncoderSetup(settings), 2 * seconds)
        self._broken, self._rotation = False, first.rotation
        self._opened_with: Frame | None = first
        self._first = self._send(first, 2 * seconds)
        if not self._first:
            raise HardwareEncoderError("it keeps frames back")

    def add_to(self, container: Any) -> None:
        """Add the stream to a container."""
        self._stream = add_encoded_stream(container, self._first[0].data, self._time_base)
        if self._rotation:
            self._stream.set_display_rotation(self._rotation)

    def encode(self, frame: Frame) -> list[Packet[Any]]:
        """See `VideoEncoder`."""
        if frame is self._opened_with:
            self._opened_with, found = None, self._first
        else:
            found = self._send(frame, self._seconds)
        return [self._packet(packet) for packet in found]

    def flush(self) -> list[Packet[Any]]:
        """The packets still to come; none after a failure."""
        if self._broken:
            return []
        try:
            return [self._packet(packet) for packet in self._process.call(None, self._seconds)]
        except HardwareEncoderError:
            return []

    def repeat_headers(self) -> None:
        """Do nothing: the stream's parameters are before every key frame."""

    def _send(self, frame: Frame, seconds: float) -> list[EncodedPacket]:
        self._image_of(frame)
        try:
            packets: list[EncodedPacket] = self._process.call(self._times(frame), seconds)
        except HardwareEncoderError:
            self._broken = True
            raise
        return packets

    def _options(self, first: Frame, info: StreamInfo, crf: float, preset: str) -> dict[str, str]:
        return self._make_options(crf, preset)

    def _fill(self, luma: Plane, chroma: Plane) -> None:
        np.copyto(self._luma, luma)
        np.copyto(self._chroma, chroma)

    def _packet(self, encoded: EncodedPacket) -> Packet[Any]:
        packet: Packet[Any] = av.Packet(encoded.data)
        packet.pts, packet.dts, packet.duration = encoded.pts, encoded.dts, encoded.duration
        packet.time_base, packet.is_keyframe, packet.stream = self._time_base, encoded.is_keyframe, self._stream
        return packet


class NvencProcess:
    """NVENC for one live output at a time: a `HardwareEncoding`. `make` makes the work of the process."""

    name = "NVENC"

    def __init__(
        self,
        make: WorkFactory | None = None,
        options: Callable[[float, str], dict[str, str]] = nvenc.live_options,
        *,
        patience: float,
        seconds: float = NVENC_SECONDS,
    ) -> None:
        """Patience: seconds that an output may wait until the process is ready; `seconds`: the longest that a frame may take."""
        self._seconds = seconds
        self._make, self._options, self._patience = make or partial(HostFrameEncoder, CODEC), options, patience
        self._process: CodecProcess | None = None

    def prepare(self) -> None:
        """Start the process."""
        if self._process is None:
            self._process = CodecProcess(self._make, "the process of NVENC", HardwareEncoderError)

    def close(self) -> None:
        """End the process; another starts when it is needed again."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def open(
        self, container: Any, first: Frame, info: StreamInfo, *, crf: float, preset: str, key_seconds: float
    ) -> RemoteEncoder:
        """See `HardwareEncoding`."""
        reason = nvenc.why_not_size(first.height, first.width, interlaced=first.interlaced or info.interlaced)
        if reason or first.luma.size * 3 // 2 > SHARED_BYTES:
            raise HardwareEncoderError(reason or f"{first.width}x{first.height} is too large")
        try:
            self.prepare()
            assert self._process is not None
            if not self._process.is_ready(self._patience):
                raise HardwareNotReadyError(f"it was not ready after {self._process.age:.1f} s")
            settings: dict[str, Any] = {"crf": crf, "preset": preset, "key_seconds": key_seconds}
            encoder = RemoteEncoder(self._process, first, info, self._options, seconds=self._seconds, **settings)
            encoder.add_to(container)
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise HardwareEncoderError(line_of(error)) from error
        return encoder
