"""What no pipeline can beat: decoding alone, and decoding and encoding with nothing in between."""

from __future__ import annotations

from fractions import Fraction
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import av

from cliprl.bench.harness.timing import BenchJob, Runner, TaskOutcome
from cliprl.bench.peers.baseline_loop import PRESET


def decode(job: BenchJob) -> Runner:
    """PyAV decodes with all threads; pictures are dropped."""

    def run(out: Path, frames: int | None) -> TaskOutcome:
        with av.open(job.clip) as container:
            container.streams.video[0].thread_type = "AUTO"
            return TaskOutcome(sum(1 for _ in islice(container.decode(video=0), frames)))

    return run


def transcode(job: BenchJob) -> Runner:
    """PyAV decodes and hands the same pictures to x264."""

    def run(out: Path, frames: int | None) -> TaskOutcome:
        with av.open(job.clip) as source, av.open(out, "w") as target:
            video = source.streams.video[0]
            video.thread_type = "AUTO"
            stream: Any = target.add_stream(
                "libx264", rate=video.average_rate or Fraction(25), options={"preset": PRESET}
            )
            stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
            count = 0
            for frame in islice(source.decode(video), frames):
                frame.pict_type = 0  # the encoder chooses its own key frames
                target.mux(stream.encode(frame))
                count += 1
            target.mux(stream.encode(None))
        return TaskOutcome(count)

    return run


def torchcodec_decode(job: BenchJob) -> Runner:
    """torchcodec's VideoDecoder, iterated, as its documentation does."""
    decoders: Any = import_module("torchcodec.decoders")

    def run(out: Path, frames: int | None) -> TaskOutcome:
        return TaskOutcome(sum(1 for _ in islice(decoders.VideoDecoder(job.clip), frames)))

    return run
