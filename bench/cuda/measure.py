"""The GPU measurement with its result file, which is written again after each step."""

from __future__ import annotations

import argparse
import tempfile
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from cliprl.bench.cuda.cases import Bench, cases, clip_for, long_run, promises, run_case
from cliprl.bench.cuda.inputs import find_bundle
from cliprl.bench.cuda.runs import scene_frames
from cliprl.bench.harness import environment
from cliprl.bench.harness.nvml import open_meter
from cliprl.bench.harness.result import Result, Series
from cliprl.engines import Bundle, CompiledBundle, EngineError, load_engines
from cliprl.engines.cache.cache_store import StoredEntry
from cliprl.engines.selection.engine_variant import candidates
from cliprl.pipeline.cuda.context import SharedGpu

HEIGHT, WIDTH = 1080, 1920
# Input size of the limits, if the bundle is generated.
NETWORK_SIZE = (512, 640)
METHOD = {
    "includes": "copy into pinned memory, upload, field of view, network input, networks, overlay, download of the painted frame",
    "excludes": "video encoding but for 'file to file'; decoding but for that and the cases called decoded",
    "latency": "from a frame's arrival in pinned memory, or in the ring, to the painted frame in host memory",
}
# Seconds reserved for the end of the run.
_CLOSING = 15.0


class Report:
    """The result file, written again after each step."""

    def __init__(self, card: SharedGpu, given: argparse.Namespace, path: Path) -> None:
        self._card, self._given, self._path = card, given, path
        self.series: list[Series] = []
        self.notes: list[str] = list(card.notes)
        self.bundle: dict[str, Any] = {}
        self._watch = environment.LoadWatch()

    def note(self, text: str) -> None:
        """Add a line for the reader, once."""
        if text not in self.notes:
            self.notes.append(text)
            print(text, flush=True)

    def add(self, series: Sequence[Series]) -> None:
        """Add series, and write the file."""
        self.series += series
        for one in series:
            print(f"{one.title}: p50 {one.digest().p50:.4g}, p99 {one.digest().p99:.4g} {one.unit}", flush=True)
        self.write()

    def find(self, case: str, name: str) -> Series | None:
        """The series of that case and name."""
        return next((one for one in self.series if (one.case, one.name) == (case, name)), None)

    def write(self) -> None:
        """Write the file."""
        given = self._given
        command = f"python bench/gpu.py --bundle {Path(given.bundle).name} --seconds {given.seconds:g}"
        known = {key: value for key, value in environment.describe().items() if value is not None}
        result = Result(
            kind="gpu",
            command=f"{command} --frames {given.frames} --minutes {given.minutes:g}",
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=environment.commit(),
            machine={"gpu": [self._card.gpu.name]} | known | self._watch.block(),
            input={"name": "rendered scene", "size": f"{WIDTH}x{HEIGHT}"},
            bundle=self.bundle,
            method=METHOD | {"seconds": given.seconds},
            series=tuple(self.series),
            notes=tuple(self.notes),
        )
        result.write(self._path)


def measure(
    card: SharedGpu,
    given: argparse.Namespace,
    left: Callable[[], float],
    report: Report,
    sanitized: Callable[[], bool],
) -> list[bool]:
    """Run all measurements, the sanitizer before the long run, which gets the time `left`; return whether each limit held."""
    with tempfile.TemporaryDirectory(prefix="cliprl-gpu-") as place:
        try:
            bench = prepare_bench(card, given, report, Path(place))
        except Exception as error:
            traceback.print_exc()
            report.note(f"nothing was measured: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            report.write()
            return [sanitized(), False]
        clip, coded = clip_for(bench, Path(place), given.clip)
        for name, case in cases(bench, clip, coded, Path(place)).items():
            if left() > 2 * given.seconds + _CLOSING:
                report.add(run_case(name, case, report.note))
        clean = sanitized()
        seconds = left() - _CLOSING
        if given.frames and seconds > given.seconds:
            report.add(run_case("long run", lambda: long_run(bench, given.frames, seconds), report.note))
    verdicts = promises(report.find)
    for text, _ in verdicts:
        report.note(f"promise: {text}")
    report.write()
    return [clean, *(held is not False for _, held in verdicts)]


def prepare_bench(card: SharedGpu, given: argparse.Namespace, report: Report, folder: Path) -> Bench:
    """Open bundle and networks, and render the frames."""
    bundle = find_bundle(given.bundle, NETWORK_SIZE, folder / "bundle", report.note)
    manifest = bundle.manifest
    size = f"{manifest.width}x{manifest.height}"
    report.bundle |= {"name": manifest.name, "input": size, "steps": manifest.steps}
    engines = load_networks(bundle, report.note)
    report.note(f"networks by {engines.backend} in {engines.precision}, every frame with all {manifest.steps} steps")
    meter = open_meter(str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid))
    return Bench(card, bundle, engines, scene_frames(HEIGHT, WIDTH), given.seconds, report.note, meter)


def load_networks(bundle: Bundle, say: Callable[[str], None]) -> CompiledBundle:
    """Load the networks in FP16 on the GPU; the accuracy gate is skipped without OpenVINO, which computes its reference."""
    trained = "weights" not in bundle.manifest.training
    if trained and find_spec("openvino"):
        return load_engines(bundle, device="cuda", precision="f16", say=say)
    say("the accuracy gate was skipped: " + ("openvino is not installed" if trained else "the weights are random"))
    for candidate in candidates(bundle, "cuda", "f16", say=say):
        try:
            return candidate.load(StoredEntry(candidate.build(), {}))
        except EngineError as error:
            say(str(error))
    raise EngineError("no engine serves")
