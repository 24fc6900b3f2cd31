"""The base of sinks that write files, and a group of sinks that take the same frames."""

from __future__ import annotations

import shutil
import sys
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from cliprl.engines import CliprlError, reason_of
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import BaseSink, Sink
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.group_errors import check_sink, failure_at_end, report_failures


class FileSink(BaseSink):
    """A sink that writes under a partial name beside its target, and takes the target's name at the end.

    Leaving it normally, by Ctrl-C or by `close` gives the output its name. After an exception the output is finished too,
    but keeps its partial name, and a note names it: an earlier file at the target stays. When nothing was written,
    nothing is left. `notes` are one-line remarks for the user, `frames` counts what was written.
    """

    failures: tuple[type[Exception], ...] = (OSError,)  # what a failed write may raise
    notes: list[str]

    def __init__(self, target: Path) -> None:
        self.target = target
        self.notes = []
        self._closed = False

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Take one frame. Raises CliprlError if it can't be written; the sink is closed then."""
        if self._closed:
            raise CliprlError(f"'{self.target}' is closed: open a new sink to write more frames")
        with self._failing():
            self._write(frame, segmentation)
        self.frames += 1

    def close(self) -> None:
        """Finish the output under its name. Calling it twice is harmless."""
        self._end(whole=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # KeyboardInterrupt and SystemExit are not Exceptions: an interrupted run keeps its output.
        if kind is None or not issubclass(kind, Exception):
            self._end(whole=True)
            return
        try:
            self._end(whole=False)
        except CliprlError as failure:  # the error of the run takes precedence
            self.notes.append(str(failure))

    def remove_partial(self) -> None:
        """Remove the unfinished output that a failed write left, if there is one."""
        place = self._place()
        if self._closed and place is not None:
            with suppress(OSError):
                shutil.rmtree(place) if place.is_dir() else place.unlink()

    def _end(self, *, whole: bool) -> None:
        if self._closed:
            return
        self._closed = True
        if not self.frames:
            self._discard()
            return
        with self._failing():
            self._finish(whole)
        if not whole and self._place():
            self.notes.append(
                f"the run failed: its first {self.frames} frames are in '{self._place()}', '{self.target}' is untouched"
            )

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Turn an error of the operating system or a library into one line, and keep what was written."""
        try:
            yield
        except self.failures as error:
            self._fail(error, getattr(error, "strerror", None) or reason_of(error))

    def _fail(self, error: Exception, reason: str) -> NoReturn:
        self._closed = True
        self._abandon()
        place = self._place()
        kept = f"; what was written of {self.frames} frames is in '{place}'" if self.frames and place else ""
        remedies = {FileExistsError: "choose another name", BrokenPipeError: "let its reader read to the end"}
        remedy = next((text for kind, text in remedies.items() if isinstance(error, kind)), None) or self._remedy()
        raise CliprlError(f"can't write '{self.target}' ({reason}){kept}: {remedy}") from error

    def _remedy(self) -> str:
        return "free some space or choose another place"

    @abstractmethod
    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Write one frame."""

    @abstractmethod
    def _finish(self, whole: bool) -> None:
        """Finish what was written; give it its name if the run was `whole`."""

    @abstractmethod
    def _abandon(self) -> None:
        """Release an output that can't be finished, and keep what can be read."""

    @abstractmethod
    def _discard(self) -> None:
        """Remove everything that was written."""

    @abstractmethod
    def _place(self) -> Path | None:
        """Return the path of the unfinished output. None if it is written directly, or does not exist."""


class SinkGroup:
    """Several sinks that take the same frames. When one fails, all are finished, and its error names it."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        """Raises UsageError if a sink lacks a part of the protocol."""
        for sink in sinks:
            check_sink(sink)
        self.sinks = self._open = tuple(sinks)
        self._frames = 0

    @property
    def needs_planes(self) -> bool:
        """Whether any sink reads the planes of the frames in host memory."""
        return any(not isinstance(sink, BaseSink) or sink.needs_planes for sink in self.sinks)

    @property
    def notes(self) -> list[str]:
        """The notes of all sinks."""
        return [note for sink in self.sinks if isinstance(sink, BaseSink) for note in sink.notes]

    @property
    def written(self) -> list[int]:
        """Number of frames written by each sink."""
        return [sink.frames if isinstance(sink, BaseSink) else self._frames for sink in self.sinks]

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Write the frame to each. Raises the error of a sink after all were finished as after a failed run."""
        try:
            for sink in self.sinks:
                sink.write(frame, segmentation)
            self._frames += 1
        except Exception:
            self.__exit__(*sys.exc_info())
            raise

    def close(self) -> None:
        """Finish all. Raises one CliprlError for all that could not be finished."""
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failures: list[CliprlError] = []
        sinks, self._open = self._open, ()
        for sink in sinks:
            try:
                sink.__exit__(kind, error, trace)
            except Exception as failure:
                failures.append(failure_at_end(sink, failure))
        report_failures(failures, error)
