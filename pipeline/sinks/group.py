"""Several sinks that act as one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import BaseSink, Sink
from cliprl.pipeline.core.segmentation import Segmentation


class SinkGroup:
    """Several sinks that take the same frames. When one fails, all are finished, and its error says which it was."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        """Raises UsageError where a sink lacks a part of the protocol."""
        for sink in sinks:
            check_sink(sink)
        self.sinks = tuple(sinks)
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
        """Give the frame to each. Raises what one raised, after all were finished as after a failed run."""
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
        failures: list[Exception] = []
        for sink in self.sinks:
            try:
                sink.__exit__(kind, error, trace)
            except CliprlError as failure:
                failures.append(failure)
            except Exception as failure:
                failures.append(CliprlError(f"{type(sink).__name__} failed at its end: {failure!r}"))
                failures[-1].__cause__ = failure
        if failures:
            raise CliprlError("; ".join(str(failure) for failure in failures)) from failures[0]


def check_sink(sink: object) -> None:
    """Raise UsageError where a sink lacks a part of the protocol, before it is given a frame."""
    missing = [
        name
        for owner, names in ((type(sink), ("__enter__", "__exit__")), (sink, ("write", "close")))
        for name in names
        if not callable(getattr(owner, name, None))
    ]
    if missing:
        raise UsageError(
            f"the sink {type(sink).__name__} lacks {', '.join(missing)}: see cliprl.pipeline.core.interfaces.Sink"
        )
