"""The display path: each frame gets a mask, the guard's decision and a status, and goes to display, outputs and recordings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cliprl.pipeline.core.frame import Frame, StatisticsRecorder
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.live.broadcast import Broadcast, DisplayedFrame, Freshness, SourceState
from cliprl.pipeline.live.capture import CapturedFrame, LiveCapture
from cliprl.pipeline.live.clock import StreamClock
from cliprl.pipeline.live.compositor import Compositor
from cliprl.pipeline.live.controls import Controls
from cliprl.pipeline.live.recording.recorder import Recording
from cliprl.pipeline.live.recording.shared_encoder import SharedEncoder
from cliprl.pipeline.live.segmentation.mask_selection import MaskSelector, SelectedMask
from cliprl.pipeline.live.segmentation.supervisor import Supervisor
from cliprl.pipeline.live.sink_thread import SinkThread
from cliprl.pipeline.live.status import StatusReporter
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.view.privacy_guard import BodyGuard

FramePair = tuple[Frame, Frame]  # raw and overlaid


@dataclass(frozen=True, slots=True)
class DisplayPolicy:
    """Rules of the display path.

    max_age_ms: masks of older frames are never displayed. wait_ms: how long a frame may wait for its own mask. guard: pixelate
    recorded and shared frames while the endoscope is outside the body.
    """

    max_age_ms: float = 250.0
    wait_ms: float = 0.0
    guard: bool = True


class DisplayLoop:
    """Publishes frames in `broadcast`, and adds them to outputs, recordings and statistics. For one thread."""

    def __init__(
        self,
        capture: LiveCapture,
        overlay: Overlay,
        supervisor: Supervisor | None,
        outputs: Sequence[SinkThread],
        recordings: Sequence[Recording],
        encoder: SharedEncoder | None,
        controls: Controls,
        policy: DisplayPolicy,
        name: str,
        log: Callable[[str], None],
    ) -> None:
        self.broadcast, self.recorder = Broadcast(), StatisticsRecorder()
        self.without_mask = 0  # camera frames
        self._capture, self._outputs, self._controls, self._encoder = capture, outputs, controls, encoder
        through: tuple[SinkThread | Recording, ...] = (*encoder.outputs, *encoder.recordings) if encoder else ()
        self._direct_outputs = [output for output in outputs if output not in through]
        self._direct_recordings = [recording for recording in recordings if recording not in through]
        self._masks = supervisor and MaskSelector(supervisor, max_age_ms=policy.max_age_ms, wait_ms=policy.wait_ms)
        self._compositor = Compositor(overlay, controls, name)
        self._reporter = StatusReporter(capture, supervisor, recordings, overlay.classes, log)
        self._body_guard, self._clock, self._policy = BodyGuard(), StreamClock(), policy
        self._last: Frame | None = None
        self._follow = supervisor.follow if supervisor else None
        self._selected, self._appearance = SelectedMask(Freshness.OFF), self._look
        self._connection, self._index = 0, 0
        self._out_of_body = True

    def show(self, captured: CapturedFrame) -> Segmentation | None:
        """Display a camera frame. Return the mask that it was displayed with."""
        frame, self._last = captured.frame, captured.frame
        with frame.stage("draw"):
            frame.index = self._index
            self._clock.stamp(frame, captured.connection)
            if captured.connection != self._connection:
                self._connection = captured.connection
                if self._masks:
                    self._masks.forget()
            self._out_of_body = self._body_guard.update(frame)
            selected = self._masks.choose(self._index, frame) if self._masks else SelectedMask(Freshness.OFF)
            own, shared = self._draw(frame, selected, self._reporter.behind(frame))
        with frame.stage("write"):
            self._distribute(own, shared, selected, from_camera=True)
        self.recorder.add(frame, selected.segmentation)
        self.without_mask += selected.segmentation is None
        return selected.segmentation

    def show_absence(self) -> None:
        """Display a marked frame or a card if the camera is away; do nothing while it is live."""
        if self._capture.status.state is SourceState.LIVE:
            return
        own, shared, reason = self._compositor.absence(self._capture, self._last, guarded=self._is_guarded)
        own.index = shared.index = self._index
        self._clock.stamp_at(own, time.monotonic())
        shared.pts, shared.time_base, shared.duration = own.pts, own.time_base, own.duration
        self._distribute((own, own), (shared, shared), SelectedMask(Freshness.OFF, reason=reason), from_camera=False)

    def redraw(self) -> None:
        """Display the last frame of a paused or ended file again, if its look has changed."""
        if self._last is not None and self._look != self._appearance:
            again = replace(self._last, index=self._index, times={}, durations={}, threads={})
            self._publish(*self._draw(again, self._selected), self._selected, from_camera=False)

    def _draw(self, frame: Frame, selected: SelectedMask, behind: float | None = None) -> tuple[FramePair, FramePair]:
        """Return the frames for the display and for sharing, marked if the frame is `behind` (its age in seconds)."""
        self._selected, self._appearance = selected, self._look
        if self._follow is not None and selected.segmentation is not None:
            self._follow.mark(selected.segmentation)
        own = frame, self._compositor.overlaid(frame, selected, behind)
        return own, self._compositor.out_of_body(frame, behind) if self._is_guarded else own

    @property
    def _look(self) -> tuple[object, ...]:
        """What affects how a still frame looks: the controls, and the instrument that viewers follow."""
        return *self._controls.settings.appearance, self._follow and self._follow.choice

    @property
    def _is_guarded(self) -> bool:
        """Whether shared frames are pixelated now."""
        return self._policy.guard and self._out_of_body

    def _distribute(self, own: FramePair, shared: FramePair, selected: SelectedMask, *, from_camera: bool) -> None:
        """Display a frame, and add it to outputs and recordings."""
        shown = self._publish(own, shared, selected, from_camera=from_camera)
        is_recorded = self._controls.settings.recording
        if self._encoder is not None:
            self._encoder.put(shown.shared_overlaid, selected.segmentation, is_recorded=is_recorded)
        for output in self._direct_outputs:
            output.put(shown.shared_overlaid, selected.segmentation)
        for recording in self._direct_recordings:
            recording.switch(is_recorded)
            recording.put(shown)

    def _publish(
        self, own: FramePair, shared: FramePair, selected: SelectedMask, *, from_camera: bool
    ) -> DisplayedFrame:
        self._reporter.report_source()
        self._reporter.report_segmenter()
        self._reporter.report_recordings()
        guarded = self._is_guarded and self._last is not None
        status = self._reporter.status(
            self._last,
            selected,
            self._outputs,
            from_camera=from_camera,
            out_of_body=self._out_of_body,
            guarded=guarded,
        )
        shown = DisplayedFrame(self._index, *own, *shared, status, from_camera)
        self._index += 1
        self.broadcast.publish(shown, freeze=self._controls.settings.frozen)
        return shown
