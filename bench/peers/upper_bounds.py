"""Upper bounds for any pipeline: decoding alone, and decoding and encoding without processing."""

from __future__ import annotations

from fractions import Fraction
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import av

from cliprl.bench.harness.timing import BenchJob, Runner, TaskOutcome
from cliprl.bench.peers import peer
from cliprl.bench.peers.baseline_loop import PRESET


@peer("PyAV decode", "decodes, nothing else: a limit, not a peer", packages=("av",))
def decode(job: BenchJob) -> Runner:
    """Decode by PyAV with all threads; drop the frames."""

    def run(out: Path, frames: int | None) -> TaskOutcome:
        with av.open(job.clip) as container:
            container.streams.video[0].thread_type = "AUTO"
            return TaskOutcome(sum(1 for _ in islice(container.decode(video=0), frames)))

    return run


@peer(
    "PyAV decode and encode",
    "decodes and encodes with the same x264 preset, frames untouched: a limit, not a peer",
    packages=("av",),
)
def transcode(job: BenchJob) -> Runner:
    """Decode by PyAV and pass the frames to x264."""

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


@peer(
    "torchcodec decode",
    "decodes to RGB tensors, nothing else",
    ("torchcodec",),
    "pip install torchcodec",
    ("torchcodec",),
)
def torchcodec_decode(job: BenchJob) -> Runner:
    """Iterate torchcodec's VideoDecoder, as in its documentation."""
    decoders: Any = import_module("torchcodec.decoders")

    def run(out: Path, frames: int | None) -> TaskOutcome:
        return TaskOutcome(sum(1 for _ in islice(decoders.VideoDecoder(job.clip), frames)))

    return run
