"""An encoder's stream whose calls have a time limit: a driver may hang, and never return."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import Any

import av
from av.packet import Packet

_END = object()


class TimedStream:
    """Calls `encode` of a libav stream in a thread. Raises TimeoutError where a call takes longer than `seconds`.

    After that it takes no more images, and the thread that hangs keeps the stream: libav must not free it under the driver.
    """

    def __init__(self, stream: Any, seconds: float) -> None:
        self.codec_context, self.set_display_rotation = stream.codec_context, stream.set_display_rotation
        self._seconds, self._hung = seconds, False
        self._images: SimpleQueue[Any] = SimpleQueue()
        self._answers: SimpleQueue[tuple[list[Packet[Any]], Exception | None]] = SimpleQueue()
        self._thread = threading.Thread(target=self._serve, args=(stream,), name="NVENC", daemon=True)
        self._thread.start()

    def encode(self, image: av.VideoFrame | None) -> list[Packet[Any]]:
        """Return the packets that have come out; None asks for all that are left."""
        self._images.put(image)
        try:
            packets, error = self._answers.get(timeout=self._seconds)
        except Empty:
            self._hung = True
            raise TimeoutError(f"it has hung for {self._seconds:g} s") from None
        if error is not None:
            raise error
        return packets

    def close(self) -> None:
        """End the thread; one that hangs ends with its call. Calling it twice is harmless."""
        self._images.put(_END)
        if not self._hung:
            self._thread.join()

    def _serve(self, stream: Any) -> None:
        while (image := self._images.get()) is not _END:
            try:
                self._answers.put((encode_image(stream, image), None))
            except Exception as error:
                self._answers.put(([], error))


def encode_image(stream: Any, image: av.VideoFrame | None) -> list[Packet[Any]]:
    """Encode an image, or with None all that the encoder holds back."""
    return list(stream.encode(image))
