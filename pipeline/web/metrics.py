"""What the viewer tells a monitoring system, in Prometheus' text format, version 0.0.4."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Collection, Iterable
from typing import Protocol

from cliprl.pipeline.live.broadcast import Broadcast, Freshness, RecordingStatus, RecordState, SourceState, Status
from cliprl.pipeline.web.media.channels import Channel

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# In seconds. Above 100 ms surgeons' work suffers, so that is where the scale is fine.
BOUNDS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)


class Histogram:
    """Counts by upper bound, in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def lines(self, name: str) -> Iterable[str]:
        """Its samples; bucket counts add up, as the format wants."""
        running = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.counts, strict=True):
            running += count
            yield f'{name}_bucket{{le="{bound}"}} {running}'
        yield f"{name}_sum {self.total:.6f}"
        yield f"{name}_count {running}"


class _Latency(Protocol):
    latency: Histogram


def exposition(hub: Broadcast, status: Status, pump: _Latency, channels: Collection[Channel], viewers: int) -> str:
    """The whole page."""
    shown = hub.newest
    lines = [
        *_metric("frames_displayed_total", "counter", "Pictures displayed.", shown.index + 1 if shown else 0),
        *_metric("frames_dropped_total", "counter", "Camera frames that were never displayed.", status.dropped),
        *_metric("frames_skipped_total", "counter", "Those of them left undecoded to catch up.", status.skipped),
        *_metric("reconnections_total", "counter", "Times the source was lost and found.", status.reconnections),
        *_metric("segmenter_restarts_total", "counter", "Times segmentation was started again.", status.restarts),
        *_metric("display_fps", "gauge", "Camera frames displayed a second.", status.fps),
        *_metric("picture_age_seconds", "gauge", "Age of the picture now; NaN of a file or without one.", _age(status)),
        *_metric("mask_age_seconds", "gauge", "Age of the mask shown; NaN without one.", _seconds(status.age_ms)),
        *_states("source_state", "Where the source stands.", SourceState, status.state),
        *_states("mask_state", "Whose mask the picture shows.", Freshness, status.mask),
        *_metric(
            "recording", "gauge", "Whether what is recorded reaches the disk.", _is(status, RecordState.RECORDING)
        ),
        *_states("recording_state", "Where recording stands.", RecordState, status.record_state),
        *_recordings("frames_total", "Frames recorded.", [(r, r.frames) for r in status.recordings]),
        *_recordings(
            "frames_missed_total", "Frames missing in recordings.", [(r, r.missed) for r in status.recordings]
        ),
        *_recordings("faults_total", "Failed attempts to record.", [(r, r.faults) for r in status.recordings]),
        *_metric("out_of_body", "gauge", "Whether the scope is out of the body.", int(status.out_of_body)),
        *_metric("web_viewers", "gauge", "Pages and streams that are open.", viewers),
        *_head("display_latency_seconds", "histogram", "From a frame's arrival, but for any backlog, to its display."),
        *pump.latency.lines("cliprl_display_latency_seconds"),
        *_channels("web_pictures_sent_total", "Pictures handed to viewers.", [(c, c.sent) for c in channels]),
        *_channels(
            "web_pictures_skipped_total", "Pictures a viewer was too slow for.", [(c, c.skipped) for c in channels]
        ),
    ]
    return "\n".join(lines) + "\n"


def _is(status: Status, state: RecordState) -> int:
    return int(status.record_state is state)


def _recordings(name: str, text: str, values: Iterable[tuple[RecordingStatus, int]]) -> list[str]:
    samples = [f'cliprl_recording_{name}{{kind="{recording.kind}"}} {value}' for recording, value in values]
    return [*_head(f"recording_{name}", "counter", text), *samples] if samples else []


def _age(status: Status) -> float:
    age = status.age(time.monotonic())
    return float("nan") if age is None else age


def _seconds(milliseconds: float | None) -> float:
    return float("nan") if milliseconds is None else milliseconds / 1000


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP cliprl_{name} {text}", f"# TYPE cliprl_{name} {kind}"]


def _metric(name: str, kind: str, text: str, value: float) -> list[str]:
    return [*_head(name, kind, text), f"cliprl_{name} {'NaN' if value != value else format(value, '.15g')}"]


def _states(name: str, text: str, states: Iterable[str], now: str) -> list[str]:
    return [*_head(name, "gauge", text), *(f'cliprl_{name}{{state="{s}"}} {int(s == now)}' for s in states)]


def _channels(name: str, text: str, values: Iterable[tuple[Channel, int]]) -> list[str]:
    samples = [f'cliprl_{name}{{kind="{c.kind}",view="{c.view}"}} {value}' for c, value in values]
    return [*_head(name, "counter", text), *samples]
