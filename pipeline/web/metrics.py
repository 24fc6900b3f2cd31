"""Metrics of a running viewer in the Prometheus text format, version 0.0.4."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable

from prometheus_client import Histogram, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector

from cliprl.pipeline.live.broadcast import Broadcast, Freshness, RecordState, SourceState, Status
from cliprl.pipeline.web.media.channels import Channel

__all__ = ["CONTENT_TYPE", "exposition", "latency_histogram"]

# Upper bounds in seconds. Latency above 100 ms disturbs a surgeon's work, so the scale is fine below it.
_BOUNDS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
_Samples = Iterable[tuple[dict[str, str], float]]


def latency_histogram() -> Histogram:
    """Return an empty histogram of the time in seconds from a frame's arrival to its display."""
    text = "Time from a frame's arrival (without any backlog) to its display."
    return Histogram("cliprl_display_latency_seconds", text, buckets=_BOUNDS, registry=None)


def exposition(
    broadcast: Broadcast, status: Status, latency: Histogram, channels: Collection[Channel], viewers: int
) -> bytes:
    """Return all metrics as text, in UTF-8."""
    newest = broadcast.newest
    displayed = newest.index + 1 if newest else 0
    return generate_latest(
        _Families([*_stream(status, displayed, viewers), _without_created(latency), *_web(channels)])
    )


class _Families(Collector):
    """Metric families as a collector."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _stream(status: Status, displayed: int, viewers: int) -> Iterable[Metric]:
    age = status.age(time.monotonic())
    mask_age = None if status.age_ms is None else status.age_ms / 1000
    yield _counter("frames_displayed", "Frames displayed.", displayed)
    yield _counter("frames_dropped", "Camera frames that were never displayed.", status.dropped)
    yield _counter("frames_skipped", "Dropped frames that were not decoded, to catch up.", status.skipped)
    yield _counter("reconnections", "Times the source was lost and found again.", status.reconnections)
    yield _counter("segmenter_restarts", "Times the segmenter was restarted.", status.restarts)
    yield _gauge("display_fps", "Camera frames displayed per second.", status.fps)
    yield _gauge(
        "picture_age_seconds", "Age of the displayed frame now; NaN for a file and before the first frame.", age
    )
    yield _gauge("mask_age_seconds", "Age of the displayed mask; NaN without a mask.", mask_age)
    yield _states("source_state", "State of the source.", SourceState, status.state)
    yield _states("mask_state", "Freshness of the displayed mask.", Freshness, status.mask)
    recording = status.record_state is RecordState.RECORDING
    yield _gauge("recording", "Whether recorded frames reach the disk.", recording)
    yield _states("recording_state", "State of all recordings.", RecordState, status.record_state)
    if status.recordings:
        kinds = [({"kind": recording.kind}, recording) for recording in status.recordings]
        yield _family("recording_frames", "Frames recorded.", "counter", [(kind, r.frames) for kind, r in kinds])
        missed = [(kind, float(r.missed)) for kind, r in kinds]
        yield _family("recording_frames_missed", "Frames missing in recordings.", "counter", missed)
        yield _family(
            "recording_faults", "Failed attempts to record.", "counter", [(kind, r.faults) for kind, r in kinds]
        )
    yield _gauge("out_of_body", "Whether the endoscope is outside the body.", status.out_of_body)
    yield _gauge("web_viewers", "Open pages and MJPEG streams.", viewers)


def _web(channels: Collection[Channel]) -> Iterable[Metric]:
    labels = [({"kind": channel.kind, "view": channel.view}, channel) for channel in channels]
    sent, skipped = [(label, c.sent) for label, c in labels], [(label, c.skipped) for label, c in labels]
    yield _family("web_pictures_sent", "Images sent to viewers.", "counter", sent)
    yield _family("web_pictures_skipped", "Images not sent because a viewer was too slow.", "counter", skipped)


def _without_created(histogram: Histogram) -> Metric:
    """Return the histogram's family without the creation time, which the text format states as a metric."""
    (family,) = histogram.collect()
    family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    return family


def _counter(name: str, text: str, value: float) -> Metric:
    return _family(name, text, "counter", [({}, value)])


def _gauge(name: str, text: str, value: float | None) -> Metric:
    return _family(name, text, "gauge", [({}, math.nan if value is None else value)])


def _states(name: str, text: str, states: Iterable[str], now: str) -> Metric:
    return _family(name, text, "gauge", [({"state": str(state)}, state == now) for state in states])


def _family(name: str, text: str, kind: str, samples: _Samples) -> Metric:
    """Return a metric family. The text format adds `_total` to a counter's name only in its header."""
    family = Metric(f"cliprl_{name}", text, kind)
    suffix = "_total" if kind == "counter" else ""
    for labels, value in samples:
        family.add_sample(f"cliprl_{name}{suffix}", labels, float(value))
    return family
