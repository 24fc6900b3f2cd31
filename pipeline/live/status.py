"""What is told of the pictures: of each one its status, and of the source, once, what has become of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.live.broadcast import LATE, RecordState, SourceState, Status
from cliprl.pipeline.live.capture import LiveCapture, SourceStatus
from cliprl.pipeline.live.clock import Rate
from cliprl.pipeline.live.lateness import Lateness, Steady
from cliprl.pipeline.live.recording.recorder import Recording
from cliprl.pipeline.live.segmentation.mask_selection import SelectedMask
from cliprl.pipeline.live.segmentation.supervisor import Supervisor
from cliprl.pipeline.live.sink_thread import SinkThread
from cliprl.pipeline.overlay.class_statistics import class_statistics


class StatusReporter:
    """Knows where everything beside the picture stands. For use by the display path's thread."""

    def __init__(
        self,
        camera: LiveCapture,
        supervisor: Supervisor | None,
        recordings: Sequence[Recording],
        classes: Sequence[ClassSpec],
        say: Callable[[str], None],
    ) -> None:
        self._camera, self._supervisor, self._recordings = camera, supervisor, recordings
        self._names = [spec.name for spec in classes]
        self._say, self._steady, self._was_told = say, Steady(), False
        self._said_of: dict[str, str] = {}
        self._rate, self._lateness = Rate(), Lateness()
        self._shown: SourceStatus | None = None

    def behind(self, frame: Frame) -> float | None:
        """By how many seconds a camera's frame is behind, as it is about to be displayed; None where it is not."""
        now = time.monotonic()
        age = now - frame.times["captured"]
        return age if self._camera.live and self._lateness.is_behind(age, now) else None

    def status(
        self,
        last: Frame | None,
        chosen: SelectedMask,
        outlets: Sequence[SinkThread],
        *,
        camera: bool,
        out_of_body: bool,
        guarded: bool,
    ) -> Status:
        """The status of a picture that is about to be displayed. `last`: the newest frame; `camera`: it came just now."""
        now, captured = time.monotonic(), last.times.get("captured") if last else None
        standing = self._shown = self._standing(last if camera else None)
        remarks = [outlet.remark for outlet in outlets if outlet.remark]
        remarks += [remark for recording in self._recordings if (remark := _remark(recording))]
        live = captured if self._camera.live else None
        return Status(
            state=standing.state,
            since=standing.since,
            problem=standing.problem,
            mask=chosen.mask,
            age_ms=chosen.age_ms,
            reason=chosen.reason,
            fps=self._rate.count(now) if camera else self._rate.at(now),
            captured=live,
            displayed=now,
            latency_ms=(now - captured) * 1000 if camera and captured is not None else None,
            behind_s=now - live if standing.state is SourceState.BEHIND and live is not None else None,
            dropped=self._camera.dropped,
            skipped=self._camera.skipped,
            reconnections=max(self._camera.connections - 1, 0),
            restarts=self._supervisor.restarts if self._supervisor else 0,
            areas=self._areas(chosen),
            out_of_body=out_of_body,
            guarded=guarded,
            recordings=tuple(recording.status for recording in self._recordings),
            note="; ".join(remarks),
        )

    def tell_of_source(self) -> None:
        """Say what has become of the source, once, where that has lasted."""
        standing = self._camera.standing
        if self._shown and standing.state is SourceState.LIVE and self._shown.state is SourceState.BEHIND:
            standing = self._shown
        told = f"source {standing.state}" + (f": {standing.problem}" if standing.problem else "")
        news = self._steady.hear(standing.state, told, time.monotonic())
        if news and (self._was_told or standing.state is not SourceState.LIVE):
            self._say(news)
        self._was_told = self._was_told or news is not None

    def tell_of_recordings(self) -> None:
        """Say that a recording has failed, or goes on, once."""
        for recording in self._recordings:
            remark = _remark(recording)
            if remark and remark != self._said_of.get(recording.kind):
                self._say(remark)
            self._said_of[recording.kind] = remark

    def _standing(self, frame: Frame | None) -> SourceStatus:
        """Where the source stands, for a picture that is shown: a frame that came just now, or none."""
        standing, shown = self._camera.standing, self._shown
        if frame is None:
            return standing
        if self.behind(frame) is None:  # perhaps one of the last before a loss, which had to wait
            return standing if standing.state is SourceState.LIVE else SourceStatus(SourceState.LIVE, time.time())
        since = shown.since if shown and shown.state is SourceState.BEHIND else time.time()
        return SourceStatus(SourceState.BEHIND, since, LATE)

    def _areas(self, chosen: SelectedMask) -> dict[str, float]:
        if chosen.segmentation is None:
            return {}
        return {self._names[m.class_id]: m.share for m in class_statistics(chosen.segmentation)}


def _remark(recording: Recording) -> str:
    """What the user has to know of a recording: that it fails, or that frames are missing. Without numbers, which change."""
    if recording.error is not None:
        ending = "; trying again" if recording.state is RecordState.FAILED else ""
        return f"the {recording.kind} recording has failed: {recording.error}{ending}"
    return f"frames are missing in the {recording.kind} recording" if recording.missed else ""
