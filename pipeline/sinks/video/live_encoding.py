"""The encoder of a live output: a GPU's where there is one, else libx264, which also takes over from a GPU's that fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Protocol

import av

from cliprl.engines import CliprlError, ignore_message
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.sinks.video.encoder import VideoEncoder, encoded_rate


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
        """Open an encoder that keeps no frame back, with a key frame every `key_seconds`, for a stream of `container`."""
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
    """A stream whose header is written, in the place of a container that libx264 is to be opened for."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def add_stream(self, codec: str) -> Any:
        """Create an encoder whose packets belong to the stream."""
        context = av.CodecContext.create(codec, "w")

        def encode(image: av.VideoFrame | None) -> list[Any]:
            packets = list(context.encode(image))  # type: ignore[attr-defined]
            for packet in packets:
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
