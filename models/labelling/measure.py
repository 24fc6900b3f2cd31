"""Measure the frames of a video for the choice, and write those that were chosen as a labelling task."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.engines import Bundle
from cliprl.models.labelling.frame_selection import FrameMeasure
from cliprl.pipeline.core.frame import Frame, FrameContext
from cliprl.pipeline.core.interfaces import BaseSink, LabelStyle, OutputSpec, Sink
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import inside_cells
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sources import open_source
from cliprl.pipeline.stream.stream import Stream


class MeasuringSegmenter(Segmenter):
    """A segmenter that keeps a `FrameMeasure` of each frame. `video` names the video it is on."""

    video: str
    measures: list[FrameMeasure]

    def start(self, video: str) -> None:
        """Forget the previous video."""
        self.reset()
        self.video, self.measures = video, []

    def refine(self, context: FrameContext) -> None:
        """Refine, then measure."""
        super().refine(context)
        found = context.segmentation
        assert found is not None
        inside = inside_cells(context.view, *found.labels.shape)
        changed = (context.logits[0].argmax(axis=0) != found.labels)[inside]
        feature = np.asarray(context.features[0], np.float32).mean(axis=(1, 2))
        self.measures.append(
            FrameMeasure(
                self.video,
                context.frame.index,
                context.frame.seconds,
                1 - found.confidence if found.reliability is None else found.reliability.doubt,
                float(changed.mean()) if changed.size else 0.0,
                feature,
            )
        )


class _ChosenOnly(BaseSink):
    """Passes the frames with the given indices to a sink."""

    def __init__(self, sink: Sink, indices: Collection[int]) -> None:
        self._sink, self._indices = sink, indices

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        if frame.index in self._indices:
            self._sink.write(frame, segmentation)

    def close(self) -> None:
        self._sink.close()

    def __exit__(self, *error: Any) -> None:
        self._sink.__exit__(*error)  # after an error it must not pass for whole


def measure_video(segmenter: MeasuringSegmenter, video: str) -> list[FrameMeasure]:
    """Run the segmenter over a video. Returns the measures of its frames."""
    segmenter.start(video)
    Stream(open_source(video), segmenter).run()
    return segmenter.measures


def write_task(
    segmenter: MeasuringSegmenter, bundle: Bundle, video: str, indices: Collection[int], targets: Sequence[Path | str]
) -> None:
    """Run the segmenter once more, and write the frames with these indices into label files and folders of frames."""
    segmenter.start(video)
    source = open_source(video)
    frames = next((Path(str(t)).name for t in targets if str(t).endswith(".frames/")), "")
    spec = OutputSpec(source.info, bundle.manifest.classes, LabelStyle(frames=frames))
    with ExitStack() as opened:
        sinks = [opened.enter_context(_ChosenOnly(open_sink(target, spec), indices)) for target in targets]
        Stream(source, segmenter, sinks=sinks).run(frames=max(indices) + 1)
