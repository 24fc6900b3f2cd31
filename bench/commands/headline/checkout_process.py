"""Streams a clip with the `cliprl` that Python finds first, on request: the process of another checkout (see `checkout`).

It uses nothing of the benchmark, and of the pipeline only its public names, so that it runs in earlier versions. Each line of its
input is a JSON list: the output file (or null, for labels only), the most frames (or null), and a file for the labels (or null).
"""

from __future__ import annotations

import json
import sys
import time
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


def main() -> None:
    """Answer each line of the input with a line of JSON; the first line is printed when the networks are compiled."""
    clip, bundle, steps = json.loads(sys.argv[1])
    segmenter = Segmenter(bundle, steps=steps)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(stream_clip(clip, segmenter, *json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
