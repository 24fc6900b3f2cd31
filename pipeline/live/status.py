"""The status of each displayed frame, and messages about the source and the recordings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Followed
from cliprl.pipeline.live.broadcast import LATE_MESSAGE, RecordState, SourceState, Status
from cliprl.pipeline.live.capture import LiveCapture, SourceStatus
from cliprl.pipeline.live.clock import Rate
from cliprl.pipeline.live.lateness import Debouncer, Lateness
from cliprl.pipeline.live.recording.recorder import Recording
from cliprl.pipeline.live.segmentation.mask_selection import SelectedMask
from cliprl.pipeline.live.segmentation.supervisor import Supervisor
from cliprl.pipeline.live.sink_thread import SinkThread
from cliprl.pipeline.overlay.class_statistics import class_statistics

# Kinds of failures that are reported.
_MOST_FAULTS = 20
# What is stated after a damaged frame, and for how many seconds after the last one that may refer to it.
_DAMAGE, _DAMAGE_S = "frames arrive damaged: parts of the image may be wrong", 3.0


class StatusReporter:
    """Collects the status of the source, the segmenter, the outputs and the recordings. For the display path's thread."""

    def __init__(
        self,
        capture: LiveCapture,
        supervisor: Supervisor | None,
        recordings: Sequence[Recording],
        classes: Sequence[ClassSpec],
        log: Callable[[str], None],
    ) -> None:
        self._capture, self._supervisor, self._recordings = capture, supervisor, recordings
        self._names = [spec.name for spec in classes]
        self._say, self._debouncer, self._has_reported = log, Debouncer(), False
        self._last_remarks: dict[str, str] = {}
        self._faults: set[str] = set()
        self._rate, self._lateness = Rate(), Lateness()
        self._shown: SourceStatus | None = None
        self._connection = self._damaged = 0
        self._damaged_at = -_DAMAGE_S

    def behind(self, frame: Frame) -> float | None:
        """Return the age in seconds of a camera frame that is about to be displayed late; None if it is in time."""
        now = time.monotonic()
        age = now - frame.times["captured"]
        return age if self._capture.live and self._lateness.is_behind(age, now) else None

    def status(
        self,
        last: Frame | None,
        selected: SelectedMask,
        outputs: Sequence[SinkThread],
        *,
        from_camera: bool,
        out_of_body: bool,
        guarded: bool,
    ) -> Status:
        """Return the status of a frame that is about to be displayed. `last`: the newest camera frame."""
        now, captured = time.monotonic(), last.times.get("captured") if last else None
        source = self._shown = self._source_status(last if from_camera else None)
        remarks = [_DAMAGE] if self._is_damaged(now) else []
        remarks += [output.remark for output in outputs if output.remark]
        remarks += [remark for recording in self._recordings if (remark := _remark(recording))]
        live = captured if self._capture.live else None
        return Status(
            state=source.state,
            since=source.since,
            problem=source.problem,
            mask=selected.mask,
            age_ms=selected.age_ms,
            reason=selected.reason,
            fps=self._rate.count(now) if from_camera else self._rate.at(now),
            captured=live,
            displayed=now,
            latency_ms=(now - captured) * 1000 if from_camera and captured is not None else None,
            behind_s=now - live if source.state is SourceState.BEHIND and live is not None else None,
            dropped=self._capture.dropped,
            skipped=self._capture.skipped,
            reconnections=max(self._capture.connections - 1, 0),
            restarts=self._supervisor.restarts if self._supervisor else 0,
            areas=self._areas(selected),
            followed=self._followed(selected),
            presence=selected.segmentation.presence or {} if selected.segmentation else {},
            reliability=selected.segmentation.reliability if selected.segmentation else None,
            out_of_body=out_of_body,
            guarded=guarded,
            recordings=tuple(recording.status for recording in self._recordings),
            note="; ".join(remarks),
        )

    def report_source(self) -> None:
        """Report a state of the source that has lasted, once."""
        status = self._capture.status
        if self._shown and status.state is SourceState.LIVE and self._shown.state is SourceState.BEHIND:
            status = self._shown
        text = f"source {status.state}" + (f": {status.problem}" if status.problem else "")
        news = self._debouncer.update(status.state, text, time.monotonic())
        if news and (self._has_reported or status.state is not SourceState.LIVE):
            self._say(news)
        self._has_reported = self._has_reported or news is not None

    def report_segmenter(self) -> None:
        """Report each kind of failure of the segmenter, once."""
        fault = self._supervisor.state.fault if self._supervisor else ""
        if fault and fault not in self._faults and len(self._faults) < _MOST_FAULTS:
            self._faults.add(fault)
            self._say(f"the segmenter has failed, and starts again: {fault}")

    def report_recordings(self) -> None:
        """Report the failure or the recovery of a recording, once."""
        for recording in self._recordings:
            remark = _remark(recording)
            if remark and remark != self._last_remarks.get(recording.kind):
                self._say(remark)
            self._last_remarks[recording.kind] = remark

    def _source_status(self, frame: Frame | None) -> SourceStatus:
        """Return the status to display with a new camera frame, or with None."""
        status, shown = self._capture.status, self._shown
        if frame is None:
            return status
        if self.behind(frame) is None:  # possibly a waiting frame from before a disconnection
            return status if status.state is SourceState.LIVE else SourceStatus(SourceState.LIVE, time.time())
        since = shown.since if shown and shown.state is SourceState.BEHIND else time.time()
        return SourceStatus(SourceState.BEHIND, since, LATE_MESSAGE)

    def _is_damaged(self, now: float) -> bool:
        """Return whether a camera's frames were damaged a moment ago. The first of a connection may lack what it refers to."""
        damaged, connection = self._capture.damaged, self._capture.connections
        if connection != self._connection:
            self._connection, self._damaged = connection, damaged + 1
        if damaged > self._damaged:
            self._damaged, self._damaged_at = damaged, now
        return self._capture.live and now - self._damaged_at < _DAMAGE_S

    def _followed(self, selected: SelectedMask) -> Followed | None:
        if selected.segmentation is not None and selected.segmentation.instances is not None:
            return selected.segmentation.instances.followed
        follow = self._supervisor.follow if self._supervisor else None
        return follow.without_mask() if follow is not None else None

    def _areas(self, selected: SelectedMask) -> dict[str, float]:
        if selected.segmentation is None:
            return {}
        return {self._names[m.class_id]: m.share for m in class_statistics(selected.segmentation)}


def _remark(recording: Recording) -> str:
    """Return the problem of a recording, without numbers, which change; empty if there is none."""
    if recording.error is not None:
        ending = "; trying again" if recording.state is RecordState.FAILED else ""
        return f"the {recording.kind} recording has failed: {recording.error}{ending}"
    return f"frames are missing in the {recording.kind} recording" if recording.missed else ""
