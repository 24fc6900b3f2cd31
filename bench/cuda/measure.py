"""The GPU measurement with its result file, which is written again after each step."""

from __future__ import annotations

import argparse
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cliprl.bench.cuda.case_process import (
    LONG_RUN,
    NETWORK_CASE,
    CaseJob,
    open_gpu_bench,
    run_process,
    save_frames,
)
from cliprl.bench.cuda.cases import Bench, cases, check_limits, clip_for
from cliprl.bench.cuda.inputs import find_bundle
from cliprl.bench.cuda.runs import scene_frames
from cliprl.bench.harness import environment
from cliprl.bench.harness.result import Result, Series

# Input size of the limits, if the bundle is generated.
NETWORK_SIZE = (512, 640)
METHOD = {
    "includes": "copy into pinned memory, upload, field of view, network input, networks, overlay, download of the painted frame",
    "excludes": "video encoding but for 'file to file'; decoding but for that and the cases called decoded",
    "latency": "from a frame's arrival in pinned memory, or in the ring, to the painted frame in host memory",
}
# Seconds reserved for the end of the run, and for the start of a process.
_CLOSING, _STARTING = 15.0, 12.0
# Seconds that the process of a short case may take, besides its measurements.
_LONGEST = 60.0


class Report:
    """The result file, written again after each step."""

    def __init__(self, gpu: str, given: argparse.Namespace, path: Path) -> None:
        self._gpu, self._given, self._path = gpu, given, path
        self.series: list[Series] = []
        self.notes: list[str] = []
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
        known = {key: value for key, value in environment.describe_machine().items() if value is not None}
        result = Result(
            kind="gpu",
            command=f"{command} --frames {given.frames} --minutes {given.minutes:g}",
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=environment.commit(),
            machine={"gpu": [self._gpu]} | known | self._watch.block(),
            input={"name": "rendered scene", "size": f"{given.size[1]}x{given.size[0]}"},
            bundle=self.bundle,
            method=METHOD | {"seconds": given.seconds},
            series=tuple(self.series),
            notes=tuple(self.notes),
        )
        result.write(self._path)


def measure(
    given: argparse.Namespace,
    left: Callable[[], float],
    report: Report,
    sanitized: Callable[[], bool],
    site: Path | None = None,
    open_bench: Callable[[CaseJob, Callable[[str], None]], Bench] = open_gpu_bench,
) -> list[bool]:
    """Run all measurements, each in a process, the sanitizer before the long run, which gets the time `left`.

    Return whether each limit held.
    """
    with tempfile.TemporaryDirectory(prefix="cliprl-gpu-") as place:
        try:
            job = prepare_job(given, report, Path(place), open_bench)
        except Exception as error:
            traceback.print_exc()
            report.note(f"nothing was measured: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            report.write()
            return [sanitized(), False]
        run_process(replace(job, limit=left() / 2), report.note, site)
        known = cases(job.clip, job.coded, job.folder)
        for name in given.only or known:
            if name not in known:
                report.note(f"no case '{name}' here: one of {', '.join(known)}")
            elif left() > 2 * given.seconds + _STARTING + _CLOSING:
                report.add(
                    run_process(
                        replace(job, name=name, limit=min(left(), _LONGEST + 3 * given.seconds)), report.note, site
                    )
                )
        clean = sanitized()
        seconds = left() - _CLOSING - _STARTING
        if given.frames and seconds > given.seconds:
            report.add(run_process(replace(job, name=LONG_RUN, limit=seconds), report.note, site))
    verdicts = check_limits(report.find)
    for text, _ in verdicts:
        report.note(f"promise: {text}")
    report.write()
    return [clean, *(held is not False for _, held in verdicts)]


def prepare_job(
    given: argparse.Namespace,
    report: Report,
    folder: Path,
    open_bench: Callable[[CaseJob, Callable[[str], None]], Bench],
) -> CaseJob:
    """Find or make the bundle, render frames, encode a clip, all without the GPU; return the job that builds the networks."""
    bundle = find_bundle(given.bundle, NETWORK_SIZE, folder / "bundle", report.note)
    report.bundle |= environment.describe_bundle(bundle)
    frames = scene_frames(*given.size)
    save_frames(frames, folder)
    clip, coded = clip_for(frames, given.seconds, folder, given.clip, report.note)
    return CaseJob(NETWORK_CASE, bundle.path, folder, given.seconds, given.frames, 0.0, clip, coded, open_bench)
