"""The cases of the GPU measurement, and the project's limits on each."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cliprl.bench.cuda.inputs import make_video
from cliprl.bench.cuda.runs import EveryStep, GpuStream, Nv12Planes, OutputFrames, run_together
from cliprl.bench.harness.meters import Meter, Sampler, resident
from cliprl.bench.harness.result import Series
from cliprl.engines import Bundle, CompiledBundle
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.cuda.context import SharedGpu
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.overlay.style import Style

LONG, TOGETHER, PACE = 100_000, 8, 60
# Most samples kept of a series; of more, every n-th.
MAX_PLOTTED = 5000
# ReSurgSAM2's published frames per second.
PEER_FPS = 61.2


@dataclass(frozen=True, slots=True)
class Bench:
    """The settings of all cases: `seconds` is the length of each, `warm` the warm-up frames of the throughput cases, `note`
    receives remarks for the reader."""

    card: SharedGpu
    bundle: Bundle
    engines: CompiledBundle
    images: Sequence[Nv12Planes]
    seconds: float
    note: Callable[[str], None]
    meter: Meter | None = None
    warm: int = 60

    def streams(self, count: int = 1, **settings: Any) -> list[GpuStream]:
        """Streams on the GPU that share its networks."""
        kept = {"engines": self.engines} | settings
        return [GpuStream(self.card, self.bundle, self.images, **kept) for _ in range(count)]


Case = Callable[[Bench], Iterator[Series]]


def cases(clip: str | None, coded: bool, folder: Path) -> dict[str, Case]:
    """The short cases by name. `clip` is a video file to decode, `coded` is True if its frames have time codes; output videos go
    into `folder`."""
    found: dict[str, Case] = {
        "throughput": partial(measure_throughput, case="throughput"),
        f"paced at {PACE} FPS": partial(paced, case=f"paced at {PACE} FPS"),
        f"{TOGETHER} streams at {PACE} FPS": partial(paced, case=f"{TOGETHER} streams at {PACE} FPS", count=TOGETHER),
        "slow consumer": slow_consumer,
    }
    if clip is not None:
        decoded: dict[str, Any] = {"clip": clip, "coded": coded}
        found |= {
            "decoded, throughput": partial(measure_throughput, case="decoded, throughput", **decoded),
            f"decoded, paced at {PACE} FPS": partial(paced, case=f"decoded, paced at {PACE} FPS", **decoded),
            "file to file": partial(file_to_file, clip=clip, folder=folder),
        }
    return found


def measure_throughput(bench: Bench, case: str, **settings: Any) -> Iterator[Series]:
    """Measure maximum throughput, and the GPU's load meanwhile."""
    run_together(bench.streams(**settings), bench.warm)
    streams = bench.streams(**settings)
    busy = Sampler(bench.meter.busy if bench.meter else lambda: None)
    busy.start()
    seen = run_together(streams, 10**9, bench.seconds)
    shares = busy.stop()
    yield from stream_series(bench, case, seen)
    # The meter averages over the past: its first answers cover the time before.
    yield one_round_series(case, "GPU busy", "%", shares[len(shares) // 4 :])


def paced(bench: Bench, case: str, count: int = 1, **settings: Any) -> Iterator[Series]:
    """Measure at a camera's rate; a frame that is not read in time is dropped."""
    streams = bench.streams(count, pace=PACE, **settings)
    yield from stream_series(bench, case, run_together(streams, round(bench.seconds * PACE)))


def slow_consumer(bench: Bench) -> Iterator[Series]:
    """Measure with a consumer that can't keep up: frames may be dropped, but not damaged."""
    streams = bench.streams(pace=PACE)
    yield from stream_series(bench, "slow consumer", run_together(streams, round(bench.seconds * PACE), slow=0.05))


def file_to_file(bench: Bench, clip: str, folder: Path) -> Iterator[Series]:
    """Measure a run from video file to video file, with the decoder and encoder of the GPU."""
    from cliprl.pipeline.stream.stream import Stream

    device, case = CudaDevice(bench.card), "file to file"
    segmenter = EveryStep(bench.bundle, device=device, engines=bench.engines)
    with device.source(clip, bench.note) as source:
        scene = OutputSpec(source.info, segmenter.classes)
        sink = device.sink(str(folder / "overlay.mp4"), scene)
        marks: list[float] = []

        def mark(frame: Frame, _: object) -> None:
            marks.append(time.monotonic())

        summary = Stream(source, segmenter, device.overlay(segmenter.classes, Style()), [sink]).run(mark)
    for text in summary.notes:
        bench.note(f"{case}: {text}")
    yield one_round_series(case, "fps", "FPS", [(len(marks) - 1) / (marks[-1] - marks[0])])


def long_run(bench: Bench, frames: int, seconds: float) -> Iterator[Series]:
    """Run `frames` frames, or fewer if `seconds` end first, and sample memory meanwhile."""
    streams = bench.streams()
    host, card = Sampler(resident), Sampler(bench.meter.memory if bench.meter else lambda: None)
    for sampler in (host, card):
        sampler.start()
    seen = run_together(streams, frames, seconds)
    done = len(seen[0].finished)
    if done < frames:
        bench.note(f"long run: {done} of {frames} frames in the time there was")
    yield one_round_series("long run", "frames", "frames", [float(done)])
    yield from stream_series(bench, "long run", seen)
    yield one_round_series("long run", "host memory", "MB", host.stop())
    yield one_round_series("long run", "GPU memory", "MB", card.stop())


def stream_series(bench: Bench, case: str, seen: Sequence[OutputFrames]) -> list[Series]:
    """Frame rate, latency, dropped and wrong frames of the streams of one case."""
    for text in dict.fromkeys(note for one in seen for note in one.notes):
        bench.note(f"{case}: {text}")
    spans = [(len(one.finished) - 1, one.finished[-1] - one.finished[0]) for one in seen if len(one.finished) > 1]
    rates = [count / span for count, span in spans]
    return [
        one_round_series(case, "fps", "FPS", rates),
        one_round_series(case, "latency", "ms", [seconds * 1000 for one in seen for seconds in one.latencies]),
        one_round_series(case, "refinement steps", "mean", [sum(one.steps) / max(len(one.steps), 1) for one in seen]),
        one_round_series(case, "frames dropped", "frames", [float(one.dropped) for one in seen]),
        one_round_series(case, "frames that came out wrong", "frames", [float(one.wrong) for one in seen]),
        one_round_series(case, f"fps over {PEER_FPS}", "times", [rate / PEER_FPS for rate in rates]),
    ]


def one_round_series(case: str, name: str, unit: str, values: Sequence[float]) -> Series:
    """Make a series of one round, subsampled if it is long."""
    step = -(-len(values) // MAX_PLOTTED) or 1
    note = f"every {step}th of {len(values)} samples" if step > 1 else ""
    return Series.of(case, name, unit, [list(values[::step])], note)


def run_case(name: str, case: Callable[[], Iterator[Series]], note: Callable[[str], None]) -> list[Series]:
    """Run a case and return its series; an error is noted and ends this case only."""
    try:
        return list(case())
    except Exception as error:
        traceback.print_exc()
        note(f"{name}: FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
        return []
    finally:
        gc.collect()


def clip_for(
    images: Sequence[Nv12Planes], seconds: float, folder: Path, given: str | None, note: Callable[[str], None]
) -> tuple[str | None, bool]:
    """A video file to decode, and whether its frames have time codes: the given one, or a generated one if PyAV is installed."""
    if given is not None:
        return given, False
    try:
        return make_video(folder / "scene.mp4", images, round(PACE * seconds)), True
    except ImportError as error:
        note(f"nothing was decoded or encoded: {error}")
        return None, False


Found = Callable[[str, str], Series | None]


def check_limits(found: Found) -> list[tuple[str, bool | None]]:
    """The project's limits, each with its figure and whether it holds; None if it was not measured."""
    many, at_rate, together = "throughput", f"paced at {PACE} FPS", f"{TOGETHER} streams at {PACE} FPS"
    return [
        _promise(found(many, "fps"), "throughput at least 500 FPS", 500, _median),
        _promise(found(many, f"fps over {PEER_FPS}"), f"at least 8 times {PEER_FPS} FPS", 8, _median),
        _promise(found(many, "GPU busy"), "GPU busy at least 90 %", 90, _median),
        _promise(found(at_rate, "latency"), f"p50 at most 3 ms, {at_rate}", -3, lambda s: -s.digest().p50),
        _promise(found(at_rate, "latency"), f"p99 at most 5 ms, {at_rate}", -5, lambda s: -s.digest().p99),
        _promise(found(together, "frames dropped"), f"no frame dropped, {together}", 0, _negative_sum),
        *(
            _promise(found(case, "frames that came out wrong"), f"no frame wrong, {case}", 0, _negative_sum)
            for case in (many, at_rate, together, "slow consumer", "decoded, throughput", "long run")
        ),
        _promise(found("long run", "frames"), f"long run of {LONG} frames", LONG, _median),
        _promise(found("long run", "host memory"), "host memory grows by at most 2 %", -0.02, _growth),
        _promise(found("long run", "GPU memory"), "GPU memory grows by at most 2 %", -0.02, _growth),
    ]


def _promise(
    series: Series | None, text: str, least: float, figure: Callable[[Series], float]
) -> tuple[str, bool | None]:
    if series is None or not series.rounds[0]:
        return f"{text}: not measured", None
    value = figure(series)
    held = value >= least
    return f"{text}: {'held' if held else 'NOT HELD'} ({abs(value):.4g})", held


def _median(series: Series) -> float:
    return series.digest().p50


def _negative_sum(series: Series) -> float:
    return -sum(series.rounds[0])


def _growth(series: Series) -> float:
    """The negative of the growth from the second tenth of the run to its last, as a share."""
    values = series.rounds[0]
    tenth = max(len(values) // 10, 1)
    early, late = sorted(values[tenth : 2 * tenth] or values), sorted(values[-tenth:])
    return -(late[len(late) // 2] / early[len(early) // 2] - 1)
