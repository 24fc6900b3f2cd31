"""Streams a clip, or measures its stages, with the `cliprl` that Python finds first: the process of a checkout (see `checkout`).

It uses nothing of the benchmark, so that the same code measures every version; to stream, of the pipeline only its public names.
Each line of its input is a JSON list: the output file (or null, for labels only), the most frames (or null), and a file for the
labels (or null).
"""

from __future__ import annotations

import json
import sys
import time
from itertools import islice
from typing import Any

import numpy as np

from cliprl.pipeline import OutputSpec, Overlay, Segmenter, Stream, open_sink, open_source


def stream_clip(clip: str, segmenter: Any, out: str | None, frames: int | None, labels: str | None) -> dict[str, float]:
    """Stream the clip once; return frames, seconds and CPU seconds. The labels of all frames go into a NumPy file."""
    kept = []
    start, cpu = time.monotonic(), time.process_time()
    segmenter.reset()
    with open_source(clip) as source:
        sink = open_sink(out or "null:", OutputSpec(source.info, segmenter.classes))
        with Stream(source, segmenter, Overlay(segmenter.classes), [sink]) as stream:
            count = 0
            for _, segmentation in stream:
                count += 1
                if labels is not None and segmentation is not None:
                    kept.append(segmentation.labels.copy())
                if count == frames:
                    break
    if labels is not None:
        np.save(labels, np.array(kept))
    return {"frames": count, "seconds": time.monotonic() - start, "cpu": time.process_time() - cpu}


class CpuClock:
    """CPU seconds of the process by stage."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._last = time.process_time()

    def note(self, stage: str) -> None:
        """Count the time since the last call for a stage."""
        now = time.process_time()
        self.spent[stage] = self.spent.get(stage, 0.0) + now - self._last
        self._last = now


def measure_stages(clip: str, segmenter: Any, out: str, frames: int, _: None) -> dict[str, float]:
    """CPU milliseconds of a frame in each stage, over the clip's first frames, which are decoded into memory first.

    Opening and closing files is left out.
    """
    from cliprl.pipeline.core.frame import FrameContext
    from cliprl.pipeline.core.thread_policy import single_threaded

    segmenter.reset()
    overlay = Overlay(segmenter.classes)
    with open_source(clip) as source, single_threaded():  # as within the stream
        clock = CpuClock()
        held = list(islice(source, frames))
        clock.note("decode")
        found = []
        for frame in held:
            context = FrameContext(frame)
            clock.note("")
            for stage in segmenter.stages:
                stage.run(context)
                clock.note(stage.name)
            overlay.draw(frame, context.segmentation)
            clock.note("draw")
            found.append(context.segmentation)
        with open_sink(out, OutputSpec(source.info, segmenter.classes)) as sink:
            for number, (frame, segmentation) in enumerate(zip(held, found, strict=True)):
                sink.write(frame, segmentation)
                clock.note("write" if number else "")  # the first one opens the file
    return {stage: seconds * 1000 / len(held) for stage, seconds in clock.spent.items() if stage}


def main() -> None:
    """Answer each line of the input with a line of JSON; the first line is printed when the networks are compiled."""
    task, clip, bundle, steps = json.loads(sys.argv[1])
    segmenter = Segmenter(bundle, steps=steps)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(globals()[task](clip, segmenter, *json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
