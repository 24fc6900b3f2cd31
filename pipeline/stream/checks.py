"""Checks, limits and notes of a stream's run, apart from the way of a frame."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress

from cliprl.engines import UsageError
from cliprl.pipeline.core.frame import Frame, StatisticsRecorder
from cliprl.pipeline.core.interfaces import FrameSegmenter, Source
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.base import SinkGroup
from cliprl.pipeline.stream.pace import RealTimePace

StreamResults = Generator[tuple[Frame, Segmentation | None], None, None]

# The segmenters that a stream runs now, by their ids, each with a mark of its run.
_running: dict[int, object] = {}


@contextmanager
def in_use(segmenter: FrameSegmenter | None) -> Iterator[None]:
    """Reset a segmenter and keep it, and those that it wraps, for one stream. Raises UsageError if another stream runs one."""
    if segmenter is None:
        yield
        return
    run, kept = object(), list[int]()
    try:
        for one in _with_inner(segmenter):
            if _running.setdefault(id(one), run) is not run:  # atomic: streams may begin on several threads
                raise UsageError(
                    "the segmenter is in use by another stream, and each result depends on the frame before: make another one"
                )
            kept.append(id(one))
        segmenter.reset()
        yield
    finally:
        for key in kept:
            del _running[key]


def _with_inner(segmenter: object) -> Iterator[object]:
    """Yield a segmenter, and what it wraps as its attribute `inner`."""
    while segmenter is not None:
        yield segmenter
        segmenter = getattr(segmenter, "inner", None)


def checked_parts(
    source: Source, segmenter: FrameSegmenter | None, sinks: object
) -> tuple[Source, FrameSegmenter | None]:
    """Return source and segmenter. Raises UsageError for parts of another kind, such as the name of a file for a source."""
    if not all(hasattr(source, name) for name in ("info", "read", "close", "waits", "damaged", "skipped")):
        raise UsageError(f"a {type(source).__name__} is no source: give one of open_source, or a FrameSource")
    if segmenter is not None and not all(hasattr(segmenter, name) for name in ("stages", "ring", "reset")):
        raise UsageError(f"a {type(segmenter).__name__} is no segmenter: give a Segmenter")
    if not isinstance(sinks, Iterable):
        raise UsageError(f"sinks is a {type(sinks).__name__}: give a list of sinks")
    return source, segmenter


class OneIteration:
    """The only iteration over a stream. It ends with the stream, also if it was left without its end and is still referred to."""

    def __init__(self) -> None:
        self._kept: Callable[[], StreamResults | None] | None = None  # None: none has begun

    def check_unused(self) -> None:
        """Raise UsageError if the iteration has begun already."""
        if self._kept is not None:
            raise UsageError("a Stream runs once: make another one, with a source and sinks that are opened anew")

    def begin(self, results: StreamResults) -> StreamResults:
        """Return `results`. Raises UsageError if the iteration has begun already."""
        self.check_unused()
        self._kept = weakref.ref(results)  # no cycle: an iteration that is dropped ends at once
        return results

    def end(self) -> None:
        """Close the results if they are still referred to."""
        if self._kept is not None and (results := self._kept()) is not None:
            with suppress(ValueError):  # another thread is inside it
                results.close()


def check_frame_count(frames: int | None) -> None:
    """Raise UsageError if `frames` is no number of frames; None is all."""
    if frames is not None and (not hasattr(frames, "__index__") or frames < 0):
        raise UsageError(f"frames {frames!r} is not a number of frames: give 0 or more, or leave it out for all")


def notes_of_run(
    source: Source,
    sinks: SinkGroup,
    segmenter: FrameSegmenter | None,
    pace: RealTimePace | None,
    recorder: StatisticsRecorder,
) -> list[str]:
    """Return the notes of all parts of a run, and one if the segmenter's budget left no time for refinement."""
    notes = [*source.info.notes, *sinks.notes, *(segmenter.notes if segmenter else ())]
    refines = segmenter is not None and segmenter.steps and recorder.segmented
    if segmenter is not None and segmenter.budget is not None and refines and not recorder.steps:
        ms = f"{segmenter.budget * 1000:g} ms"
        notes.append(f"a budget of {ms} is gone before refinement: every mask is unrefined")
    return [*notes, *(pace.notes if pace else ())]
