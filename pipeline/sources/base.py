"""The base class of sources: iteration, closing, and notes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Self

from cliprl.engines import UsageError
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.core.interfaces import PlaneAllocator, StreamInfo


class FrameSource(ABC):
    """A source of frames; see `cliprl.pipeline.core.interfaces.Source`.

    `damaged` counts frames decoded with errors or lost to them, `skipped` those left undecoded to catch up, `jumps` the places
    where a frame does not follow the one before. `origin` is the first frame's time in its file, in seconds. `waits`: `read`
    may wait for a device, a network or another program.
    """

    waits: bool = True
    origin: float = 0.0

    def __init__(self, info: StreamInfo) -> None:
        self.info = info
        self.damaged = self.skipped = self.jumps = 0
        self.closed = False

    def read(self, allocate: PlaneAllocator = allocate_planes) -> Frame | None:
        """The next frame, its planes written into what `allocate(height, width)` returns; None at the end.

        Raises UsageError after `close`, CliprlError if the stream breaks.
        """
        if self.closed:
            raise UsageError(f"{self.info.name} is closed: open it again to read frames")
        return self._read(allocate)

    @abstractmethod
    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        """`read` of a source that is open."""

    @property
    def stored(self) -> bool:
        """Whether a live stream comes in stored parts of several seconds, as HLS does."""
        return False

    @property
    def waiting(self) -> int:
        """Packets of a live stream that have arrived and are not decoded yet."""
        return 0

    @property
    def is_undecodable(self) -> bool:
        """Whether packets of a live stream have come since its last frame, and gave none."""
        return False

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame

    def note(self, text: str) -> None:
        """Add a line to `info.notes`, once."""
        if text not in self.info.notes:
            self.info = replace(self.info, notes=(*self.info.notes, text))

    def close(self) -> None:
        """Release the file or device. Calling it twice is harmless."""
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
