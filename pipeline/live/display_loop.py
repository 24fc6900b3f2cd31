"""What becomes of each picture on the display path: a mask, the guard, a status, and whoever is to get it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.statistics import StatisticsRecorder
from cliprl.pipeline.live.broadcast import Broadcast, DisplayedFrame, Freshness, SourceState
from cliprl.pipeline.live.capture import CapturedFrame, LiveCapture
from cliprl.pipeline.live.clock import StreamClock
from cliprl.pipeline.live.compositor import Compositor
from cliprl.pipeline.live.controls import Controls
from cliprl.pipeline.live.privacy_guard import BodyGuard
from cliprl.pipeline.live.recording.recorder import Recording
from cliprl.pipeline.live.segmentation.mask_selection import MaskSelector, SelectedMask
from cliprl.pipeline.live.segmentation.supervisor import Supervisor
from cliprl.pipeline.live.sink_thread import SinkThread
from cliprl.pipeline.live.status import StatusReporter
from cliprl.pipeline.overlay.overlay import Overlay

Both = tuple[Frame, Frame]  # a picture raw and overlaid


@dataclass(frozen=True, slots=True)
class DisplayPolicy:
    """What a viewer can rely on. max_age_ms: masks of older frames are never shown. wait_ms: how long a frame may wait for its
    own mask. guard: pixelate what is recorded or sent while the scope is out of the body.
    """

    max_age_ms: float = 250.0
    wait_ms: float = 0.0
    guard: bool = True


class DisplayLoop:
    """Puts pictures into `broadcast`, outputs and recordings, and counts them. For use by the display path's thread alone."""

    def __init__(
        self,
        camera: LiveCapture,
        overlay: Overlay,
        supervisor: Supervisor | None,
        outlets: Sequence[SinkThread],
        recordings: Sequence[Recording],
        controls: Controls,
        promise: DisplayPolicy,
        name: str,
        say: Callable[[str], None],
    ) -> None:
        self.broadcast, self.recorder = Broadcast(), StatisticsRecorder()
        self._camera, self._outlets, self._recordings, self._controls = camera, outlets, recordings, controls
        self._masks = supervisor and MaskSelector(supervisor, max_age_ms=promise.max_age_ms, wait_ms=promise.wait_ms)
        self._pictures = Compositor(overlay, controls, name)
        self._reporter = StatusReporter(camera, supervisor, recordings, overlay.classes, say)
        self._guard, self._timeline, self._guards = BodyGuard(), StreamClock(), promise.guard
        self._last: Frame | None = None
        self._chosen, self._looks = SelectedMask(Freshness.OFF), controls.settings.looks
        self._connection, self._index = 0, 0
        self._out_of_body = True

    def show(self, captured: CapturedFrame) -> Segmentation | None:
        """Display a frame that the camera gave; the mask it was shown with."""
        frame, self._last = captured.frame, captured.frame
        with frame.stage("draw"):
            frame.index = self._index
            self._timeline.stamp(frame, captured.connection)
            if captured.connection != self._connection:
                self._connection = captured.connection
                if self._masks:
                    self._masks.forget()
            self._out_of_body = self._guard.update(frame)
            chosen = self._masks.choose(self._index, frame) if self._masks else SelectedMask(Freshness.OFF)
            own, shared = self._drawn(frame, chosen, self._reporter.behind(frame))
        with frame.stage("write"):
            self._hand_out(own, shared, chosen, camera=True)
        self.recorder.add(frame, chosen.segmentation)
        return chosen.segmentation

    def show_absence(self) -> None:
        """Display what there is without a new frame: nothing new yet, a marked picture, or a card."""
        if self._camera.standing.state is SourceState.LIVE:
            return
        own, shared, reason = self._pictures.absence(self._camera, self._last, guarded=self._is_guarded)
        own.index = shared.index = self._index
        self._timeline.stamp_at(own, time.monotonic())
        shared.pts, shared.time_base, shared.duration = own.pts, own.time_base, own.duration
        self._hand_out((own, own), (shared, shared), SelectedMask(Freshness.OFF, reason=reason), camera=False)

    def redraw(self) -> None:
        """Display the last picture of a file that pauses or has ended anew, where the controls have changed since."""
        if self._last is not None and self._controls.settings.looks != self._looks:
            again = replace(self._last, index=self._index, times={}, durations={}, threads={})
            self._publish(*self._drawn(again, self._chosen), self._chosen, camera=False)

    def _drawn(self, frame: Frame, chosen: SelectedMask, behind: float | None = None) -> tuple[Both, Both]:
        """The picture for the display, and as it may be shared; marked where it is `behind`, in seconds."""
        self._chosen, self._looks = chosen, self._controls.settings.looks
        own = frame, self._pictures.overlaid(frame, chosen, behind)
        return own, self._pictures.veiled(frame, behind) if self._is_guarded else own

    @property
    def _is_guarded(self) -> bool:
        """Whether what is shared must not show the picture."""
        return self._guards and self._out_of_body

    def _hand_out(self, own: Both, shared: Both, chosen: SelectedMask, *, camera: bool) -> None:
        """Display a picture, and hand it to outputs and recordings."""
        shown = self._publish(own, shared, chosen, camera=camera)
        for outlet in self._outlets:
            outlet.put(shown.shared_overlaid, chosen.segmentation)
        for recording in self._recordings:
            recording.switch(self._controls.settings.recording)
            recording.put(shown)

    def _publish(self, own: Both, shared: Both, chosen: SelectedMask, *, camera: bool) -> DisplayedFrame:
        self._reporter.tell_of_source()
        self._reporter.tell_of_recordings()
        guarded = self._is_guarded and self._last is not None
        status = self._reporter.status(
            self._last, chosen, self._outlets, camera=camera, out_of_body=self._out_of_body, guarded=guarded
        )
        shown = DisplayedFrame(self._index, *own, *shared, status, camera)
        self._index += 1
        self.broadcast.publish(shown, freeze=self._controls.settings.frozen)
        return shown
