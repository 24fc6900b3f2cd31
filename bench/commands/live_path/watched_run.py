"""`cliprl-bench watch`: `cliprl-stream` in long use, with its page and its recordings.

A camera with numbered frames sends to the program over loopback. The viewer reads each frame's number, and thus its age, from
the MJPEG stream that a browser would show. In the end every frame is searched for in the recordings.
"""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from cliprl.bench.fixtures.timecoded_camera import LOOP, CodedCamera, coded_clip, number_in, numbers_in
from cliprl.bench.harness.registry import TIMING_OPTIONS, measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction
from cliprl.engines import CliprlError

RATE = 25
# Limit on the 99th percentile from the camera to the viewer, in milliseconds.
LATENCY_P99 = 100.0
CASE = "watched and recorded"
_PROGRAM = "import sys; from cliprl.pipeline.cli.main import main; sys.argv[0] = 'cliprl-stream'; main()"
_PATIENCE = 120.0
METHOD = {
    "includes": "camera to viewer: MPEG-TS over TCP, decoding, overlay, JPEG, HTTP, and the viewer's own decoding; camera and "
    "viewer run on the same machine",
    "excludes": "a screen's own delay; encoding in the camera",
    "camera": f"H.264 at {RATE} FPS, encoded beforehand, numbers in the frames",
    "recording": "the camera's frames and the overlaid ones, at the same time; every frame is decoded and its number read",
    "promised": f"no camera frame missing from the recording; latency p99 of at most {LATENCY_P99:g} ms",
}


class ViewerProcess:
    """`cliprl-stream` on `source`, with its page and recordings in `folder`."""

    def __init__(self, source: str, job: BenchJob, folder: Path) -> None:
        steps = [] if job.steps is None else ["--steps", f"{job.steps}"]
        words = [source, "--web", "127.0.0.1:0", "--record", str(folder), "--no-guard", "--reconnect", "--json", "-q"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *words, "--bundle", job.bundle, *steps],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C in a terminal must reach this program only; `end` stops the other
        )
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        match = re.search(r"http://\S+", line)
        if match is None:
            self._process.kill()
            raise CliprlError(f"cliprl-stream did not start ({line.strip()}): try it by hand")
        self.page = match[0]

    def ask(self, path: str) -> str:
        """Request a path from the page's server; return the response."""
        with urllib.request.urlopen(self.page + path, timeout=_PATIENCE) as answer:
            text: str = answer.read().decode()
        return text

    def end(self) -> dict[str, Any]:
        """Send Ctrl-C; return the program's summary."""
        self._process.send_signal(signal.SIGINT)
        try:
            output, error = self._process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise CliprlError("cliprl-stream does not end on Ctrl-C: try it by hand") from None
        if not output:
            raise CliprlError(f"cliprl-stream failed: {error.strip()}")
        summary: dict[str, Any] = json.loads(output)
        return summary


class Viewer(threading.Thread):
    """Reads the page's MJPEG stream: when each frame was decoded, and its number (None if unreadable)."""

    def __init__(self, page: str) -> None:
        super().__init__(name="viewer", daemon=True)
        self.seen: list[tuple[float, int | None]] = []
        self._connection = http.client.HTTPConnection(urlsplit(page).netloc, timeout=_PATIENCE)

    def wait(self) -> None:
        """Wait for the first camera frame. Raises CliprlError if none comes."""
        limit = time.monotonic() + _PATIENCE
        while all(number is None for _, number in self.seen[-1:]):
            if time.monotonic() > limit:
                raise CliprlError(f"no camera frame within {_PATIENCE:g} s: try the clip with cliprl-stream --web")
            time.sleep(0.05)

    def run(self) -> None:
        """Read until the stream ends."""
        try:
            self._connection.request("GET", "/stream.mjpg")
            answer = self._connection.getresponse()
            while (length := _length(answer)) is not None:
                image = cv2.imdecode(np.frombuffer(answer.read(length), np.uint8), cv2.IMREAD_GRAYSCALE)
                self.seen.append((time.monotonic(), number_in(np.asarray(image, np.uint8))))
        except (OSError, http.client.HTTPException):
            return


def _length(answer: http.client.HTTPResponse) -> int | None:
    """Read the head of the next part; return its length, None at the end."""
    length = None
    while line := answer.readline():
        if match := re.match(rb"Content-Length: (\d+)", line):
            length = int(match[1])
        elif not line.strip() and length is not None:
            return length
    return None


@dataclass(frozen=True, slots=True)
class Gaps:
    """Missing and repeated numbers in a sequence that increases by one and wraps around at LOOP."""

    images: int
    missing: int
    repeated: int
    unreadable: int

    @classmethod
    def of(cls, numbers: Iterable[int | None]) -> Gaps:
        """Count over a sequence; None is an unreadable number."""
        last, unread, counts = None, 0, Counter[str]()
        for number in numbers:
            counts["pictures"] += 1
            if number is None:
                counts["unreadable"] += 1
                unread += 1
                continue
            step = 1 if last is None else (number - last) % LOOP
            counts["repeated"] += step == 0
            counts["missing"] += max(step - 1 - unread, 0)  # an overlay on the number does not count as a missing frame
            last, unread = number, 0
        return cls(counts["pictures"], counts["missing"], counts["repeated"], counts["unreadable"])


@dataclass(frozen=True, slots=True)
class WatchedRun:
    """One run of `seconds`: the ages of the received frames in seconds, how often each mask state was reported, the program's

    summary, and the signal that `cut` the run short.
    """

    ages: Sequence[float]
    seconds: float
    states: Mapping[str, int]
    summary: Mapping[str, Any]
    cut: KeyboardInterrupt | None


def watch(coded: Path, job: BenchJob, folder: Path) -> WatchedRun:
    """Run once, with recordings in `folder`."""
    camera = CodedCamera(coded, RATE)
    camera.start()
    program = ViewerProcess(camera.url, job, folder)
    viewer, cut = Viewer(program.page), None
    try:
        viewer.start()
        viewer.wait()
        time.sleep(job.warm_up)
        start, states = time.monotonic(), Counter[str]()
        try:
            while time.monotonic() < start + job.seconds:
                states.update(re.findall(r'cliprl_mask_state\{state="(\w+)"\} 1\.0\n', program.ask("metrics")))
                time.sleep(1.0)
        except KeyboardInterrupt as signal_:
            cut = signal_
        end = time.monotonic()
    finally:
        summary = program.end()
        camera.stop()
    seen = [(moment, number) for moment, number in viewer.seen if start <= moment < end and number is not None]
    return WatchedRun([camera.age(number, moment) for moment, number in seen], end - start, states, summary, cut)


@measurement(
    "watch",
    help="The whole program for ten minutes, viewed on its page and recording: age of the displayed frames, missing frames.",
    defaults=BenchJob("", rounds=1, seconds=600, warm_up=15),
    settings=(*TIMING_OPTIONS, "steps"),
    suite={"watch": {}},
)
def measure(session: ResultSession, job: BenchJob, log: LogFunction) -> Result:
    """Measure one run per round."""
    coded = coded_clip(job.clip, RATE, session.folder)
    runs: list[WatchedRun] = []
    recorded: list[Mapping[str, Gaps]] = []
    for turn in range(job.rounds):
        log(f"round {turn + 1} of {job.rounds}")
        folder = session.folder / f"recordings{turn}"
        runs.append(watch(coded, job, folder))
        log("searching for every frame in the recordings")
        recorded.append({kind: Gaps.of(_numbers(folder, kind)) for kind in ("raw", "overlay")})
        cut = runs[-1].cut
        session.keep(_result(session, runs, recorded), f"ended in round {turn + 1 + (cut is None)} of {job.rounds}")
        if cut is not None:
            raise cut
    return _result(session, runs, recorded)


def _result(session: ResultSession, runs: Sequence[WatchedRun], recorded: Sequence[Mapping[str, Gaps]]) -> Result:
    latencies, notes = [[1000 * age for age in run.ages] for run in runs], list[str]()
    for run in runs:
        asked = max(sum(run.states.values()), 1)
        shares = ", ".join(f"{state} {count / asked:.0%}" for state, count in sorted(run.states.items()))
        notes += [f"masks: {shares}; camera frames never displayed: {run.summary['dropped']}", *run.summary["notes"]]
    found = series(latencies, recorded, [run.seconds for run in runs])
    return session.result(found, METHOD, [verdict(latencies, recorded), *notes])


def _numbers(folder: Path, kind: str) -> Iterable[int | None]:
    return (number for path in sorted(folder.glob(f"*_{kind}.mp4")) for number in numbers_in(path))


def series(
    latencies: Sequence[Sequence[float]], recorded: Sequence[Mapping[str, Gaps]], seconds: Sequence[float]
) -> list[Series]:
    """Latency and rate at the viewer, and the gaps of each recording."""
    found = [
        Series.of(CASE, "latency at the viewer", "ms", latencies),
        Series.of(
            CASE,
            "pictures at the viewer",
            "FPS",
            [[len(ages) / lasted] for ages, lasted in zip(latencies, seconds, strict=True)],
        ),
    ]
    for kind in ("raw", "overlay"):
        gaps = [each[kind] for each in recorded]
        found += [
            Series.of(f"{kind} recording", "frames", "frames", [[g.images] for g in gaps]),
            Series.of(f"{kind} recording", "missing", "frames", [[g.missing] for g in gaps]),
            Series.of(
                f"{kind} recording", "repeated or unreadable", "frames", [[g.repeated + g.unreadable] for g in gaps]
            ),
        ]
    return found


def verdict(latencies: Sequence[Sequence[float]], recorded: Sequence[Mapping[str, Gaps]]) -> str:
    """Tell in a sentence whether the limits held in every round."""
    broken = []
    for ages, gaps in zip(latencies, recorded, strict=True):
        p99 = float(np.percentile(ages, 99)) if ages else float("inf")
        broken += [f"latency p99 {p99:.0f} ms"] if p99 > LATENCY_P99 else []
        broken += [f"{g.missing} frames missing in the {kind} recording" for kind, g in gaps.items() if g.missing]
        broken += [f"no {kind} recording" for kind, g in gaps.items() if not g.images]
    return (
        f"BROKEN: {'; '.join(broken)}"
        if broken
        else "held: no frame is missing in a recording, and the latency is within its limit"
    )
