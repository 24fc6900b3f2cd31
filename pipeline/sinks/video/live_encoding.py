"""The encoder of a live output: a GPU's where there is one, else libx264, which also takes over from a GPU's that fails."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

import av
from av.packet import Packet
from av.video.frame import PictureType

from cliprl.engines import CliprlError, ignore_message
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.sinks.video.coded_frame import CodedFrame
from cliprl.pipeline.sinks.video.encoder import VideoEncoder, encoded_rate


class Quality(NamedTuple):
    """Settings of libx264 for live outputs. Outputs of the same quality can share packets."""

    crf: float
    preset: str


def live_encoder(
    container: Any, first: Frame, info: StreamInfo, crf: float, preset: str, key_seconds: float
) -> VideoEncoder:
    """x264 that keeps no frame back, with a key frame every `key_seconds`."""
    stream = container.add_stream("libx264")
    encoder = VideoEncoder(stream, first, info, crf=crf, preset=preset, threads=1)
    context = stream.codec_context
    context.gop_size = max(round(float(encoded_rate(info)) * key_seconds), 1)
    context.options = context.options | {"tune": "zerolatency", "sc_threshold": "0"}
    return encoder


class HardwareEncoderError(CliprlError):
    """The encoder of a GPU can't be opened, has failed, or hangs."""


class HardwareNotReadyError(HardwareEncoderError):
    """The encoder of a GPU is still starting; it may serve the next file."""


class HardwareEncoding(Protocol):
    """Opens a GPU's encoder for one output at a time. Its methods raise HardwareEncoderError."""

    name: str

    def prepare(self) -> None:
        """Begin what takes time, without waiting for it."""
        ...

    def close(self) -> None:
        """End what works in the background. It may be opened again."""
        ...

    def open(
        self, container: Any, first: Frame, info: StreamInfo, *, crf: float, preset: str, key_seconds: float
    ) -> VideoEncoder:
        """Encode the first frame, and add the stream to a container whose header is not written yet."""
        ...


@dataclass(frozen=True, slots=True)
class LiveCodecs:
    """The codecs of a device for live streams; frames are in host memory, and none waits for the device. None: those of libav.

    encoder: makes the encoder of one output, which may wait for the given seconds until it is ready. decoder: makes what decodes
    in the place of the context of a live source; it gets a function for messages.
    """

    encoder: Callable[[float], HardwareEncoding] | None = None
    decoder: Callable[[Any, Callable[[str], None]], Any] | None = None


class LiveEncoding:
    """Chooses the encoder each time an output is opened. Once the GPU's could not be opened or has failed, it is libx264.

    `notes` name the encoder and the reason; `log` receives them when they arise.
    """

    def __init__(
        self, hardware: HardwareEncoding | None = None, *, name: str = "", log: Callable[[str], None] = ignore_message
    ) -> None:
        """`name` is the output's, for notes."""
        self.notes: list[str] = []
        self._hardware, self._name, self._log = hardware, name, log

    @property
    def on_cpu(self) -> bool:
        """Whether the encoder is libx264."""
        return self._hardware is None

    def prepare(self) -> None:
        """Begin what takes time, without waiting for it."""
        if self._hardware is not None:
            try:
                self._hardware.prepare()
            except (CliprlError, OSError) as error:
                self.refuse(error)

    def open(
        self, container: Any, first: Frame, info: StreamInfo, *, crf: float, preset: str, key_seconds: float
    ) -> VideoEncoder:
        """Open an encoder that keeps no frame back, with a key frame every `key_seconds`, for a stream of `container`.

        If the first frame is encoded already, and in this quality, its packet and those of the next ones are used.
        """
        hardware = self._hardware
        if hardware is not None:
            try:
                encoder = hardware.open(container, first, info, crf=crf, preset=preset, key_seconds=key_seconds)
            except HardwareNotReadyError as error:
                self._note(f"this file is encoded on the CPU by libx264: {hardware.name} is not ready ({error})")
            except HardwareEncoderError as error:
                self.refuse(error)
            else:
                self._note(f"encoded on the GPU by {hardware.name}")
                return encoder
        if hardware is None and isinstance(first, CodedFrame) and first.settings[0] == Quality(crf, preset):
            return PacketCopier(container, first, info, crf=crf, preset=preset, key_seconds=key_seconds)
        return live_encoder(container, first, info, crf, preset, key_seconds)

    def refuse(self, error: Exception) -> None:
        """Use libx264 from now on, and note why."""
        if self._hardware is not None:
            self._note(f"encoded on the CPU by libx264: no {self._hardware.name} ({error})")
            self.close()
            self._hardware = None

    def close(self) -> None:
        """End what works in the background. It may be opened again."""
        if self._hardware is not None:
            self._hardware.close()

    def _note(self, text: str) -> None:
        text = f"{self._name}: {text}" if self._name else text
        if text not in self.notes:
            self.notes.append(text)
            self._log(text)


def cpu_encoding(name: str) -> LiveEncoding:
    """Make the `LiveEncoding` of an output on a machine without a GPU."""
    return LiveEncoding(name=name)


class OpenStream:
    """A stream whose header is written, or none, in the place of a container that libx264 is to be opened for.

    key_due: the next frame becomes a key frame.
    """

    def __init__(self, stream: Any = None) -> None:
        self.key_due = False
        self._stream = stream

    def add_stream(self, codec: str) -> Any:
        """Create an encoder whose packets belong to the stream, if there is one."""
        context = av.CodecContext.create(codec, "w")

        def encode(image: av.VideoFrame | None) -> list[Any]:
            if image is not None:
                image.pict_type = PictureType.I if self.key_due else PictureType.NONE
            self.key_due = False
            packets = list(context.encode(image))  # type: ignore[attr-defined]
            for packet in packets if self._stream is not None else ():
                packet.stream = self._stream
            return packets

        return SimpleNamespace(codec_context=context, encode=encode, set_display_rotation=lambda _: None)


def continued(
    encoder: VideoEncoder, stream: Any, first: Frame, info: StreamInfo, *, crf: float, preset: str, key_seconds: float
) -> VideoEncoder:
    """Open libx264 for the rest of a stream that `encoder` began with the frame `first`: same size, same clock.

    Its key frames hold its parameters, which differ from those in the stream's header.
    """
    following = live_encoder(OpenStream(stream), first, info, crf, preset, key_seconds)
    following.shift = encoder.shift
    following.repeat_headers()
    return following


def add_encoded_stream(container: Any, key_frame: bytes, time_base: Fraction) -> Any:
    """Add a stream of H.264 packets to a container. Its parameters are read from the packet of a key frame."""
    with av.open(io.BytesIO(key_frame), format="h264") as parsed:
        stream = container.add_stream_from_template(parsed.streams.video[0], opaque=True)
    stream.time_base = time_base
    return stream


class PacketCopier(VideoEncoder):
    """Gives the packets that frames have already (`CodedFrame`), for a stream of another container, on its own clock.

    Where a frame has none, or one of other settings than the first's, libx264 encodes from there to a key frame that fits.
    """

    def __init__(
        self, container: Any, first: CodedFrame, info: StreamInfo, *, crf: float, preset: str, key_seconds: float
    ) -> None:
        # Holds the settings, and encodes nothing.
        holder = OpenStream().add_stream("libx264")
        super().__init__(holder, first, info, crf=crf, preset=preset, threads=1)
        self._stream = add_encoded_stream(container, first.packet, first.time_base)
        self._settings = first.settings
        arguments: dict[str, Any] = {"crf": crf, "preset": preset, "key_seconds": key_seconds}
        self._continue = partial(continued, self, self._stream, first, info, **arguments)
        self._encoder: VideoEncoder | None = None

    @property
    def is_copying(self) -> bool:
        """Whether the packets of the last frames were used."""
        return self._encoder is None

    def encode(self, frame: Frame) -> list[Packet[Any]]:
        """See `VideoEncoder`."""
        if (
            isinstance(frame, CodedFrame)
            and frame.settings == self._settings
            and (frame.is_key or self._encoder is None)
        ):
            self._encoder = None
            return [self._packet(frame)]
        self._encoder = self._encoder or self._continue()
        return self._encoder.encode(frame)

    def _packet(self, frame: CodedFrame) -> Packet[Any]:
        packet: Packet[Any] = av.Packet(frame.packet)
        packet.pts, packet.duration = self._times(frame)
        packet.dts, packet.time_base = packet.pts, self._time_base
        packet.is_keyframe, packet.stream = frame.is_key, self._stream
        return packet

    def flush(self) -> list[Packet[Any]]:
        """The packets still to come: none, as no frame is kept back."""
        return []

    def repeat_headers(self) -> None:
        """Do nothing: the stream's parameters are before every key frame."""
