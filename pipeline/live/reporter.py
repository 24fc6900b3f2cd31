"""What is told of the pictures: of each one its status, and of the source, once, what has become of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cliprl.engines import ClassSpec
from cliprl.pipeline.frame import Frame
from cliprl.pipeline.live.camera import Camera, Standing
from cliprl.pipeline.live.hub import RecordState, SourceState, Status
from cliprl.pipeline.live.masks import Chosen
from cliprl.pipeline.live.outlet import Outlet
from cliprl.pipeline.live.recording import Recording
from cliprl.pipeline.live.supervisor import Supervisor
from cliprl.pipeline.live.timeline import Rate
from cliprl.pipeline.measure import measure


class Reporter:
    """Knows where everything beside the picture stands. For use by the display path's thread."""

    def __init__(
        self,
        camera: Camera,
        supervisor: Supervisor | None,
        recordings: Sequence[Recording],
        classes: Sequence[ClassSpec],
        say: Callable[[str], None],
    ) -> None:
        self._camera, self._supervisor, self._recordings = camera, supervisor, recordings
        self._names = [spec.name for spec in classes]
        self._say, self._told = say, ""
        self._said_of: dict[str, str] = {}
        self._rate = Rate()

    def status(
        self, frame: Frame, chosen: Chosen, outlets: Sequence[Outlet], *, camera: bool, out_of_body: bool, guarded: bool
    ) -> Status:
        """The status of `frame`, which is about to be displayed; `camera`: the camera gave it just now."""
        now = time.monotonic()
        standing, captured = self._standing(camera), frame.times.get("captured")
        remarks = [outlet.remark for outlet in outlets if outlet.remark]
        remarks += [remark for recording in self._recordings if (remark := _remark(recording))]
        return Status(
            state=standing.state,
            since=standing.since,
            problem=standing.problem,
            mask=chosen.mask,
            age_ms=chosen.age_ms,
            reason=chosen.reason,
            fps=self._rate.count(now),
            latency_ms=None if captured is None else (now - captured) * 1000,
            dropped=self._camera.dropped,
            reconnections=max(self._camera.connections - 1, 0),
            restarts=self._supervisor.restarts if self._supervisor else 0,
            areas=self._areas(chosen),
            out_of_body=out_of_body,
            guarded=guarded,
            recordings=tuple(recording.status for recording in self._recordings),
            note="; ".join(remarks),
        )

    def tell_of_source(self) -> None:
        """Say what has become of the source, once."""
        standing = self._camera.standing
        told = f"source {standing.state}" + (f": {standing.problem}" if standing.problem else "")
        if told != self._told and (self._told or standing.state is not SourceState.LIVE):
            self._say(told)
        self._told = told

    def tell_of_recordings(self) -> None:
        """Say that a recording has failed, or goes on, once."""
        for recording in self._recordings:
            remark = _remark(recording)
            if remark and remark != self._said_of.get(recording.kind):
                self._say(remark)
            self._said_of[recording.kind] = remark

    def _standing(self, camera: bool) -> Standing:
        standing = self._camera.standing
        if camera and standing.state is not SourceState.LIVE:  # the last frames before, which had to wait
            return Standing(SourceState.LIVE, time.time())
        return standing

    def _areas(self, chosen: Chosen) -> dict[str, float]:
        if chosen.segmentation is None:
            return {}
        return {self._names[m.class_id]: m.share for m in measure(chosen.segmentation)}


def _remark(recording: Recording) -> str:
    """What the user has to know of a recording: that it fails, or that frames are missing. Without numbers, which change."""
    if recording.error is not None:
        ending = "; trying again" if recording.state is RecordState.FAILED else ""
        return f"the {recording.kind} recording has failed: {recording.error}{ending}"
    return f"frames are missing in the {recording.kind} recording" if recording.missed else ""
