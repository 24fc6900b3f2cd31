"""`cliprl-bench encoders`: one video file written by 1 to N x264 encoders at once, beside independent encoders.

The frames are in memory, so that nothing but the sink is measured. Independent encoders, each on one thread, are the bound: what
the processors can encode without any order between frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import chain, cycle, islice
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.bench.harness.registry import TIMING_OPTIONS, measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction, TaskOutcome, TimedRun, TimedTask, joint_fps, timed_runs
from cliprl.engines import available_cpus
from cliprl.pipeline import OutputSpec, open_sink, open_source
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.sinks.video.libav_options import quality_options
from cliprl.pipeline.sinks.video.parallel_encoder import automatic_encoders

BOUND = "independent encoders"
# Frames kept in memory, played forward and backward, and frames of a run: many groups of frames for each encoder.
KEPT, PLAYED = 48, 1500
# What the number that is chosen automatically is to reach of the bound, on this many processors or more.
GOAL_SHARE, GOAL_PROCESSORS = 0.9, 16
METHOD = {
    "includes": "copying frames that lie in memory, x264, joining, the file",
    "excludes": "decoding, segmentation, drawing; opening the clip",
    "bound": "independent libx264 encoders, one thread and one processor each, without a file; their frames added",
}
Counts = Annotated[
    list[int] | None,
    typer.Option(
        "--encoders", min=1, help="Encoders at once; may be repeated. Default: 1, 2, 4 and so on, and automatic."
    ),
]
PresetName = Annotated[str, typer.Option("--preset", help="Preset of x264.")]


def encoder_counts(preset: str, processors: int) -> list[int]:
    """The powers of two up to the number of processors, and the number that is chosen automatically."""
    powers = (2**power for power in range(processors.bit_length()))
    return sorted({automatic_encoders(preset, processors), *(count for count in powers if count <= processors)})


def first_frames(clip: str) -> tuple[StreamInfo, list[Frame]]:
    """The properties of a clip, and its first frames."""
    with open_source(clip) as source:
        return source.info, list(islice(source, KEPT))


def played(info: StreamInfo, kept: Sequence[Frame], frames: int) -> Iterator[Frame]:
    """Yield `frames` frames: those kept, forward and backward, with ascending times."""
    step = max(round(1 / ((info.rate or Fraction(25)) * info.time_base)), 1)
    for index, frame in enumerate(islice(cycle(chain(kept, reversed(kept))), frames)):
        frame.pts, frame.duration, frame.index = index * step, step, index
        yield frame


def joined_round(job: BenchJob, preset: str, encoders: int) -> list[TimedRun]:
    """Measure one round of a video file with this many encoders."""
    info, kept = first_frames(job.clip)

    def run(out: Path, frames: int | None) -> TaskOutcome:
        count = frames or PLAYED
        with open_sink(out, OutputSpec(info, ()), preset=preset, encoders=encoders) as sink:
            for frame in played(info, kept, count):
                sink.write(frame, None)
        return TaskOutcome(count, {"size": [out.stat().st_size / count / 1000]})

    return timed_runs(run, job)


def independent_round(job: BenchJob, preset: str) -> list[TimedRun]:
    """Measure one round of independent encoders, as many as processors."""
    _, kept = first_frames(job.clip)
    images = [np.vstack([frame.luma, frame.chroma.reshape(len(frame.chroma), -1)]) for frame in kept]
    processors = available_cpus()

    def run(out: Path, frames: int | None) -> TaskOutcome:
        each = max((frames or PLAYED) // processors, 1)
        with ThreadPoolExecutor(processors) as pool:
            sizes = list(pool.map(lambda _: _encode(images, preset, each), range(processors)))
        return TaskOutcome(each * processors, {"size": [sum(sizes) / each / processors / 1000]})

    return timed_runs(run, job)


def _encode(images: Sequence[NDArray[np.uint8]], preset: str, frames: int) -> int:
    """Encode NV12 images, uint8 (3H/2, W), on this thread alone. Return the number of bytes."""
    context: Any = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = images[0].shape[1], len(images[0]) * 2 // 3, "nv12"
    context.time_base, context.framerate, context.thread_count = Fraction(1, 25), Fraction(25), 1
    context.options = quality_options(23, preset) | {"bf": "0"}
    size = 0
    for index, pixels in enumerate(islice(cycle(chain(images, reversed(images))), frames)):
        image = av.VideoFrame.from_numpy_buffer(pixels, format="nv12")
        image.pts, image.time_base = index, context.time_base
        size += sum(packet.size for packet in context.encode(image))
    return size + sum(int(packet.size) for packet in context.encode(None))


@measurement(
    "encoders",
    help="One video file written by 1 to N x264 encoders at once, as a share of what the processors can encode.",
    defaults=BenchJob("", rounds=3, seconds=5, warm_up=1),
    settings=(*(name for name in TIMING_OPTIONS if name != "bundle"), "frames"),
)
def measure(
    session: ResultSession, job: BenchJob, log: LogFunction, encoders: Counts = None, preset: PresetName = "ultrafast"
) -> Result:
    """Measure all cases in turn, each in a fresh process."""
    counts = encoders or encoder_counts(preset, available_cpus())
    notes = notes_of(preset, available_cpus())
    tasks: dict[str, TimedTask] = {BOUND: (independent_round, (job, preset))}
    tasks |= {_case(count): (joined_round, (job, preset, count)) for count in counts}
    return session.rounds(
        tasks, job.rounds, log, lambda answers: session.result(series_of(answers), METHOD | {"preset": preset}, notes)
    )


def notes_of(preset: str, processors: int) -> list[str]:
    """The number of encoders that is chosen automatically, and whether these processors can show its goal."""
    chosen = _case(automatic_encoders(preset, processors))
    notes = [f"with a GPU that does not encode, {chosen} would be chosen for {processors} processors"]
    if processors < GOAL_PROCESSORS:
        goal = f"{GOAL_SHARE:g} of the bound by the number that is chosen, is for {GOAL_PROCESSORS} processors"
        notes.append(f"the goal, {goal}: {processors} can't show it")
    return notes


def _case(count: int) -> str:
    return f"{count} encoder{'s' if count > 1 else ''}"


def series_of(answers: Mapping[str, Sequence[Sequence[TimedRun]]]) -> list[Series]:
    """Rates and sizes of all cases, and the shares of the bound in the rounds that have one."""
    series = []
    bounds = [joint_fps(runs) for runs in answers.get(BOUND, ())]
    for case, rounds in answers.items():
        rates, sizes = [[run.fps for run in runs] for runs in rounds], [_sizes(runs) for runs in rounds]
        series += [Series.of(case, "fps", "FPS", rates), Series.of(case, "size of a frame", "kB", sizes)]
        if case != BOUND and bounds:
            shares = [[joint_fps(runs) / bound] for runs, bound in zip(rounds, bounds, strict=False)]
            series.append(Series.of(case, "encoded", "of bound", shares))
    return series


def _sizes(runs: Sequence[TimedRun]) -> list[float]:
    return [size for run in runs for size in run.outcome.samples["size"]]
