"""`python -m cliprl.bench.cuda.host_cost`: what a frame costs the interpreter, on a GPU that does nothing.

It runs frames of 1920x1080 through segmenter and overlay of the `cuda` device and counts the calls to the driver. `-o FILE`
writes the figures to a result file.
"""

from __future__ import annotations

import gc
import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import DTypeLike, NDArray

from cliprl.bench.cuda.runs import EveryStep
from cliprl.bench.harness import environment
from cliprl.bench.harness.result import Result, Series, check_place
from cliprl.engines import Bundle, CompiledBundle, open_bundle
from cliprl.engines.backends.engine import Engine, TensorSpec
from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.cuda.context import share
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.overlay.style import Style
from cliprl.pipeline.view.shape_fit import LINES, first_lines

_HEIGHT, _WIDTH, _FRAMES, _WARM, _BATCH = 1080, 1920, 600, 100, 50
# Pixels by which the field of view moves in a frame, and the names of what is measured.
STEPS = (0, 2, 10)
TIME, CALLS = "interpreter time", "calls to the driver"
# The methods of `Gpu` that call the driver for each frame; `done` is a query, which does not wait.
_CALLS = ("copy", "launch", "record", "wait", "synchronize", "replay", "done")


class NullGpu:
    """A GPU whose work is done at once and changes nothing. See `cliprl.pipeline.cuda.gpu_api.Gpu`."""

    name = "null GPU"

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See `Gpu`."""
        return np.zeros(shape, dtype)

    pinned = empty

    def address(self, buffer: NDArray[Any]) -> int:
        """See `Gpu`."""
        address: int = buffer.__array_interface__["data"][0]
        return address

    def slice(self, buffer: NDArray[Any], start: int, stop: int, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
        """See `Gpu`."""
        return buffer[start:stop] if shape is None else buffer[start:stop].reshape(shape)

    def bind(self) -> None:
        """See `Gpu`."""

    def stream(self, *, urgent: bool = False) -> object:
        """See `Gpu`."""
        return object()

    def give_back(self, stream: object) -> None:
        """See `Gpu`."""

    def event(self) -> object:
        """See `Gpu`."""
        return object()

    def record(self, event: object, stream: object) -> None:
        """See `Gpu`."""
        self.calls["record"] += 1

    def wait(self, stream: object, event: object) -> None:
        """See `Gpu`."""
        self.calls["wait"] += 1

    def synchronize(self, event: object) -> None:
        """See `Gpu`."""
        self.calls["synchronize"] += 1

    def done(self, event: object) -> bool:
        """See `Gpu`."""
        self.calls["done"] += 1
        return True

    def copy(self, target: Any, source: Any, stream: object) -> None:
        """See `Gpu`."""
        self.calls["copy"] += 1

    def launch(self, arguments: object, stream: object) -> None:
        """See `Gpu`."""
        self.calls["launch"] += 1

    def capture(self, work: Callable[[object], None]) -> object:
        """See `Gpu`."""
        work(object())
        return object()

    def replay(self, graph: object, stream: object) -> None:
        """See `Gpu`."""
        self.calls["replay"] += 1

    def range(self, name: str) -> AbstractContextManager[object]:
        """See `Gpu`."""
        return nullcontext()


class NullNetwork(Engine):
    """A network that computes nothing, with the tensors of a bundle's encoder."""

    backend, precision = "none", "f16"

    def __init__(self, outputs: Mapping[str, TensorSpec]) -> None:
        self.inputs: Mapping[str, TensorSpec] = {}
        self.outputs = outputs

    def capturable(self, stream: object) -> bool:
        """See `Network`."""
        return True

    def enqueue(self, tensors: Mapping[str, Any], stream: object) -> None:
        """See `Network`."""

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Raise: there is nothing to run."""
        raise NotImplementedError


def null_engines(bundle: Bundle) -> CompiledBundle:
    """Return engines of the bundle's shapes that compute nothing."""
    manifest = bundle.manifest
    grid = (manifest.height // manifest.stride, manifest.width // manifest.stride)
    features = TensorSpec("float32", (1, 64, *grid))
    network: Any = NullNetwork({"features": features})
    return CompiledBundle(network, network, {})


def disc_distances(size: tuple[int, int], x: float, y: float, radius: float) -> NDArray[np.float64]:
    """Return the distances along the strips of a frame of `size` (height, width) to a disc: float64 (2 * STRIPS, 4)."""
    rows = []
    for length, across, along, center in ((*size, y, x), (*size[::-1], x, y)):
        offsets = np.asarray(first_lines(length), np.float64) + LINES / 2 - along
        half = np.sqrt(np.maximum(radius**2 - offsets**2, 0))
        ends = np.stack([center - half, across - center - half], axis=1)
        rows.append(np.where(half[:, None] > 0, np.maximum(ends, 0), -1))
    return np.repeat(np.concatenate(rows), 2, axis=1)


def moving_discs(count: int, size: tuple[int, int], step: float) -> list[NDArray[np.float64]]:
    """Return the distances of a disc that moves `step` pixels a frame, to and fro, and is never at a place twice."""
    height, width = size
    places, found = np.cumsum(np.full(count, step)), []
    for index, place in enumerate(places):
        sway = abs(place % (0.2 * width) - 0.1 * width)
        x, y = width / 2 - 0.05 * width + sway + 0.37 * np.sin(index), height / 2 + 0.1 * step * np.sin(index / 7)
        found.append(disc_distances(size, x, y, 0.47 * height + 0.1 * step * np.sin(index / 11)))
    return found


def measure(
    frames: int = _FRAMES, warm: int = _WARM, size: tuple[int, int] = (_HEIGHT, _WIDTH), *, step: float = 0.0
) -> tuple[list[float], Counter[str]]:
    """Run frames; return the milliseconds of this thread's processor time for a frame of each batch, and the calls by name.

    A frame's upload, segmentation and overlay are counted, with legend and status line, every refinement step, and the download.
    The field of view moves by `step` pixels in every frame, and changes its size a little.
    """
    gpu: Any = NullGpu()
    bundle = open_bundle()
    device = CudaDevice(share(gpu, lambda engine: engine))  # type: ignore[arg-type,return-value]
    segmenter = EveryStep(bundle, device=device, engines=null_engines(bundle))
    for result in segmenter._results._held:
        result.totals[1:4], result.totals[-1] = 500, 5000  # three classes for the legend
    overlay, ring = device.overlay(segmenter.classes, Style()), device.ring(4, "wait")
    marks, discs = list[float](), moving_discs(warm + frames, size, step)
    for index, distances in enumerate(discs):
        if index == warm:
            gpu.calls.clear()
        if index >= warm and (index - warm) % _BATCH == 0:
            marks.append(time.thread_time())
        segmenter._view_tracker._host[:] = distances
        luma, chroma = ring.acquire(*size)
        ring.publish(Frame(luma, chroma, index, Fraction(1, 60), index))
        frame = ring.take()
        assert frame is not None
        overlay.draw(frame, segmenter(frame), "cliprl small · 3 steps · research use only")
        ring.release(frame)
    batches = [(end - start) * 1000 / _BATCH for start, end in itertools.pairwise(marks)]
    return batches, Counter({name: round(gpu.calls[name] / frames, 2) for name in _CALLS})


def case_of(step: float) -> str:
    """Return the name of the case in which the field of view moves `step` pixels a frame."""
    return f"field of view moves by {step:g} pixels a frame"


app = typer.Typer(add_completion=False)
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Write a result file of this name.")]


@app.command()
def command(output: Output = None) -> None:
    """Measure what a frame costs the interpreter on a GPU that does nothing: processor time, and calls to the driver."""
    if output is not None:
        check_place(output)
    gc.freeze()  # as the command does
    series, watch = list[Series](), environment.LoadWatch()
    for step in STEPS:
        batches, calls = measure(step=step)
        counted = ", ".join(f"{count:g} {name}" for name, count in calls.items())
        print(f"{case_of(step)}: {median(batches):.3f} ms of interpreter time a frame")
        print(f"  {sum(calls.values()):g} calls to the driver a frame: {counted}")
        series.append(Series.of(case_of(step), TIME, "ms", [batches]))
        series.append(Series.of(case_of(step), CALLS, "calls", [[sum(calls.values())]], counted))
    if output is not None:
        _result(series, watch).write(output)


def _result(series: list[Series], watch: environment.LoadWatch) -> Result:
    return Result(
        kind="gpu-host-cost",
        command="python -m cliprl.bench.cuda.host_cost -o FILE",
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=environment.commit(),
        machine=environment.describe_machine() | watch.block(),
        input={"name": "a disc that moves", "size": f"{_WIDTH}x{_HEIGHT}"},
        bundle=environment.describe_bundle(open_bundle()),
        method={"includes": "upload, segmentation, overlay, download, on a GPU that does nothing", "batch": _BATCH},
        series=tuple(series),
    )


if __name__ == "__main__":
    raise SystemExit(run_app(app, "python -m cliprl.bench.cuda.host_cost"))
