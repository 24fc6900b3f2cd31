"""The base of sinks that write one file: under a partial name until it is complete."""

from __future__ import annotations

from pathlib import Path

from cliprl.pipeline.sinks.atomic_file import PartialFile
from cliprl.pipeline.sinks.base import FileSink


class PartialFileSink(FileSink):
    """A sink whose subclasses write to `_file`, and give its last bytes."""

    def __init__(self, target: Path) -> None:
        """Create the partial file. Raises UsageError if it can't be."""
        super().__init__(target)
        self._file = PartialFile(target)
        self.notes += self._file.notes

    def _last_bytes(self) -> bytes:
        """Return what is written after the last frame."""
        return b""

    def _finish(self, whole: bool) -> None:
        self._file.write(self._last_bytes())
        if whole:
            self._file.publish()
        else:
            self._file.keep()

    def _abandon(self) -> None:
        self._file.keep()

    def _discard(self) -> None:
        self._file.discard()

    def _place(self) -> Path | None:
        return self._file.partial
