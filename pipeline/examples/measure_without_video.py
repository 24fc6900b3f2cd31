"""Measure the segmenter alone on rendered frames: neither decoding nor encoding is in the figures.

python measure_without_video.py 100
"""

import statistics
import sys

from cliprl.pipeline import Segmenter, open_source


def main(count: str = "100") -> None:
    segmenter = Segmenter("small")
    times: dict[str, list[float]] = {}
    with open_source("demo:?size=1280x720&seconds=60") as source:
        for index, frame in zip(range(int(count)), source, strict=False):
            segmenter(frame)
            if index >= 3:  # the first frames warm caches up
                for stage, seconds in frame.durations.items():
                    times.setdefault(stage, []).append(seconds * 1000)
    for stage, values in times.items():
        print(f"{stage:10} median {statistics.median(values):6.2f} ms over {len(values)} frames")


if __name__ == "__main__":
    main(*sys.argv[1:])
