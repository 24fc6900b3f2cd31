"""The notes of a run: what its outputs lack or show differently, and why."""

from __future__ import annotations

from cliprl.pipeline.core.frame import StatisticsRecorder
from cliprl.pipeline.core.interfaces import FrameSegmenter, Source
from cliprl.pipeline.sinks.base import SinkGroup
from cliprl.pipeline.stream.pace import RealTimePace


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
