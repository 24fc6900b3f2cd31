"""Write a sink: the share of the view that each class covers, as a CSV file.

    python custom_sink.py operation.mp4 shares.csv

A sink has `write` and `close`; `BaseSink` makes it a context manager. See `cliprl.pipeline.core.interfaces.Sink`.
"""

import csv
import sys
from pathlib import Path

from cliprl.pipeline import BaseSink, Frame, OutputSpec, Segmentation, Segmenter, Stream, class_statistics, open_source


class ShareSink(BaseSink):
    """Write one CSV row per frame: its time in seconds, then the share of each class, 0..1."""

    needs_planes = False

    def __init__(self, path: Path, spec: OutputSpec) -> None:
        self.file = path.open("w", newline="")
        self.rows = csv.writer(self.file)
        self.classes = len(spec.classes)
        self.rows.writerow(["seconds", *(each.name for each in spec.classes)])

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        shares = [0.0] * self.classes
        for found in class_statistics(segmentation) if segmentation else []:
            shares[found.class_id] = round(found.share, 4)
        self.rows.writerow([round(frame.seconds, 3), *shares])

    def close(self) -> None:
        self.file.close()


def main(video: str, output: str) -> None:
    segmenter, source = Segmenter("small"), open_source(video)
    sink = ShareSink(Path(output), OutputSpec(source.info, segmenter.classes))
    print(Stream(source, segmenter, sinks=[sink]).run().frames, "rows written")


if __name__ == "__main__":
    main(*sys.argv[1:])
