"""The live stream: from camera to display on one path, with everything that may fail beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from cliprl.engines import silent
from cliprl.pipeline.frame import Frame
from cliprl.pipeline.live.camera import Camera, Captured
from cliprl.pipeline.live.controls import Controls, Settings
from cliprl.pipeline.live.guard import BodyGuard
from cliprl.pipeline.live.hub import Freshness, Hub, Shown, SourceState
from cliprl.pipeline.live.masks import Chosen, Masks
from cliprl.pipeline.live.outlet import Outlet
from cliprl.pipeline.live.pictures import FIRST_SIZE, Pictures
from cliprl.pipeline.live.recording import Recording
from cliprl.pipeline.live.reporter import Reporter
from cliprl.pipeline.live.supervisor import Supervisor
from cliprl.pipeline.live.timeline import TIME_BASE, Timeline
from cliprl.pipeline.opencv import single_threaded
from cliprl.pipeline.overlay import Overlay
from cliprl.pipeline.protocols import StreamInfo
from cliprl.pipeline.segmentation import Segmentation
from cliprl.pipeline.sources.errors import Problem
from cliprl.pipeline.summary import Recorder, Summary

# Pictures a second while the camera gives none: its own rate, within these.
_SLOWEST, _FASTEST = 0.1, 0.02


@dataclass(frozen=True, slots=True)
class Promise:
    """What a viewer can rely on. max_age_ms: masks of older frames are never shown. wait_ms: how long a frame may wait for its
    own mask. guard: pixelate what is recorded or sent while the scope is out of the body.
    """

    max_age_ms: float = 250.0
    wait_ms: float = 0.0
    guard: bool = True


class LiveStream:
    """Shows each frame of a camera at once, whatever becomes of the segmenter, the outputs and the camera itself.

    `run` is the display path. It ends with the source, or by `stop`. The newest picture is in `hub`, for any number of readers;
    `outlets` get every picture, guarded. Leaving the stream (a context manager) ends all of its threads and processes.
    """

    def __init__(
        self,
        camera: Camera,
        overlay: Overlay,
        supervisor: Supervisor | None = None,
        outlets: Sequence[Outlet] = (),
        *,
        recordings: Sequence[Recording] = (),
        controls: Controls | None = None,
        promise: Promise | None = None,
        name: str = "",
        say: Callable[[str], None] = silent,
    ) -> None:
        self.camera, self.overlay, self.supervisor = camera, overlay, supervisor
        self.outlets, self.recordings = tuple(outlets), tuple(recordings)
        style = overlay.style
        self.controls = controls or Controls(overlay.classes, Settings(style.opacity, style.contours))
        self.hub, self.recorder = Hub(), Recorder()
        self._promise = promise or Promise()
        self._masks = supervisor and Masks(
            supervisor, max_age_ms=self._promise.max_age_ms, wait_ms=self._promise.wait_ms
        )
        self._pictures = Pictures(overlay, self.controls, name)
        self._reporter = Reporter(camera, supervisor, self.recordings, overlay.classes, say)
        self._guard, self._timeline = BodyGuard(), Timeline()
        self._last: Frame | None = None
        self._chosen, self._looks = Chosen(Freshness.OFF), self.controls.settings.looks
        self._connection, self._index = 0, 0
        self._out_of_body = True
        self._interrupted = threading.Event()

    @property
    def info(self) -> StreamInfo:
        """What is known of the source; before its first picture, the size of the card."""
        unknown = StreamInfo(self.camera.label, *FIRST_SIZE, TIME_BASE, live=True)
        return self.camera.info or unknown

    def run(
        self, on_frame: Callable[[Frame, Segmentation | None], None] | None = None, *, frames: int | None = None
    ) -> Summary:
        """Display until the source ends, or `frames` of its frames. `on_frame` is called with each frame displayed."""
        with single_threaded(), self:
            for thread in self._threads:
                thread.start()
            while not self._interrupted.is_set() and self.recorder.frames != frames:
                self.camera.paused = self.controls.settings.paused
                captured = self.camera.next(self._tick())
                if captured is not None:
                    segmentation = self._show(captured)
                    if on_frame is not None:
                        on_frame(captured.frame, segmentation)
                elif self.camera.ended:
                    break
                elif self.camera.live:
                    self._show_absence()
                else:
                    self._redraw()
        self._raise_failure()
        return self.summary()

    def linger(self, until: threading.Event) -> None:
        """After the end: let the last picture follow the controls, until the event."""
        while not until.wait(_SLOWEST):
            self._redraw()

    def _raise_failure(self) -> None:
        """What was asked for and could not be had, once the picture has ended."""
        outputs: list[Outlet | Recording] = [*self.outlets, *self.recordings]
        failed = [output.error for output in outputs if output.error and not output.forgiving]
        lost = None if self._interrupted.is_set() else self.camera.error
        if lost is not None and getattr(lost, "problem", None) is not Problem.ENDED:
            failed.append(lost)
        if failed:
            raise failed[0]

    def stop(self) -> None:
        """End in good order. May be called from any thread or a signal handler."""
        self._interrupted.set()
        self.camera.stop()

    def summary(self) -> Summary:
        """Figures of the run so far."""
        info = self.camera.info
        notes = [*(info.notes if info else ()), *(note for outlet in self.outlets for note in outlet.notes)]
        notes += [note for recording in self.recordings for note in recording.notes]
        dropped, damaged = self.camera.dropped, self.camera.damaged
        return self.recorder.summary(
            dropped=dropped, damaged=damaged, interrupted=self._interrupted.is_set(), notes=notes
        )

    @property
    def _threads(self) -> list[Camera | Supervisor | Outlet | Recording]:
        supervisors = [self.supervisor] if self.supervisor else []
        return [self.camera, *supervisors, *self.outlets, *self.recordings]

    def _tick(self) -> float:
        """Seconds to wait for the next frame, before the picture is looked after without it."""
        return min(max(self.camera.period, _FASTEST), _SLOWEST)

    def _show(self, captured: Captured) -> Segmentation | None:
        """Display a frame that the camera gave."""
        frame, self._last = captured.frame, captured.frame
        with frame.stage("draw"):
            frame.index = self._index
            self._timeline.stamp(frame, captured.connection)
            if captured.connection != self._connection:
                self._connection = captured.connection
                if self._masks:
                    self._masks.forget()
            self._out_of_body = self._guard.update(frame)
            chosen = self._masks.choose(self._index, frame) if self._masks else Chosen(Freshness.OFF)
            own, shared = self._drawn(frame, chosen)
        with frame.stage("write"):
            self._publish(own, shared, chosen, camera=True)
        self.recorder.add(frame, chosen.segmentation)
        return chosen.segmentation

    def _drawn(self, frame: Frame, chosen: Chosen) -> tuple[tuple[Frame, Frame], tuple[Frame, Frame]]:
        """The picture, raw and overlaid: for the display, and as it may be shared."""
        self._chosen, self._looks = chosen, self.controls.settings.looks
        own = frame, self._pictures.overlaid(frame, chosen)
        return own, self._pictures.veiled(frame) if self._is_guarded else own

    def _redraw(self) -> None:
        """Display the last picture of a file that pauses or has ended anew, where the controls have changed since."""
        if self._last is not None and self.controls.settings.looks != self._looks:
            again = replace(self._last, index=self._index, times={}, durations={})
            self._display(*self._drawn(again, self._chosen), self._chosen, camera=False)

    @property
    def _is_guarded(self) -> bool:
        """Whether what is shared must not show the picture."""
        return self._promise.guard and self._out_of_body

    def _show_absence(self) -> None:
        """Display what there is without a new frame: nothing new yet, a marked picture, or a card."""
        if self.camera.standing.state is SourceState.LIVE:
            return
        own, shared, reason = self._pictures.absence(self.camera, self._last, guarded=self._is_guarded)
        own.index = shared.index = self._index
        self._timeline.stamp_at(own, time.monotonic())
        shared.pts, shared.time_base, shared.duration = own.pts, own.time_base, own.duration
        self._publish((own, own), (shared, shared), Chosen(Freshness.OFF, reason=reason), camera=False)

    def _publish(self, own: tuple[Frame, Frame], shared: tuple[Frame, Frame], chosen: Chosen, *, camera: bool) -> None:
        """Display a picture, and hand it to outputs and recordings."""
        shown = self._display(own, shared, chosen, camera=camera)
        for outlet in self.outlets:
            outlet.put(shown.shared_overlaid, chosen.segmentation)
        for recording in self.recordings:
            recording.switch(self.controls.settings.recording)
            recording.put(shown)

    def _display(self, own: tuple[Frame, Frame], shared: tuple[Frame, Frame], chosen: Chosen, *, camera: bool) -> Shown:
        self._reporter.tell_of_source()
        guarded = self._is_guarded and self._last is not None
        status = self._reporter.status(
            own[0], chosen, self.outlets, camera=camera, out_of_body=self._out_of_body, guarded=guarded
        )
        shown = Shown(self._index, *own, *shared, status, camera)
        self._index += 1
        self.hub.publish(shown, freeze=self.controls.settings.frozen)
        return shown

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hub.close()
        for thread in self._threads:
            thread.close()
        self.recorder.end()
