"""`python -m cliprl.bench.soak INPUT`: does memory grow while a stream runs?

Runs the default pipeline on INPUT and reads the resident set size after every frame's turn: its value at frame 1,000, at
the end, and the peak of the process. Linux only: sizes are read from /proc/self/statm.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from pathlib import Path

from cliprl.pipeline import Frame, Overlay, Scene, Segmentation, Segmenter, Stream, open_sink, open_source

SETTLED = 1000
EVERY = 100
MEGABYTE = 1e6


def resident() -> float:
    """Resident set size of this process, in megabytes (10^6 bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


def soak(clip: str, outputs: list[str], bundle: str, frames: int | None) -> dict[str, object]:
    """Run to the end, or for `frames` frames. Sizes in megabytes, sampled every 100 frames."""
    segmenter = Segmenter(bundle)
    source = open_source(clip)
    sinks = [open_sink(output, Scene(source.info, segmenter.classes)) for output in outputs]
    samples: dict[int, float] = {}

    def sample(frame: Frame, segmentation: Segmentation | None) -> None:
        if frame.index % EVERY == 0:
            samples[frame.index] = resident()

    stream = Stream(source, segmenter, Overlay(segmenter.classes), sinks)
    summary = stream.run(sample, frames=frames)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MEGABYTE
    last = samples[max(samples)]
    return {
        "input": clip,
        "outputs": outputs,
        "frames": summary.frames,
        "fps": summary.fps,
        "rss_at_1000": samples.get(SETTLED),
        "rss_at_end": last,
        "growth": last - samples[SETTLED] if SETTLED in samples else None,
        "peak": peak,
        "samples": samples,
    }


def main() -> None:
    """Parse the command line, run, print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m cliprl.bench.soak", description=__doc__)
    parser.add_argument("input")
    parser.add_argument(
        "-o", "--output", action="append", default=[], help="a sink, as for cliprl-stream; may be repeated"
    )
    parser.add_argument("--bundle", default="small")
    parser.add_argument("--frames", type=int)
    options = parser.parse_args()
    print(json.dumps(soak(options.input, options.output or ["null:"], options.bundle, options.frames)))


if __name__ == "__main__":
    main()
