"""The live stream: from camera to display on one path, with everything that may fail beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from cliprl.engines import ignore_message
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.statistics import Summary
from cliprl.pipeline.core.thread_policy import single_threaded
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.clock import TIME_BASE
from cliprl.pipeline.live.compositor import FIRST_SIZE
from cliprl.pipeline.live.controls import Controls, Settings
from cliprl.pipeline.live.display_loop import DisplayLoop, DisplayPolicy
from cliprl.pipeline.live.playback import Playback
from cliprl.pipeline.live.recording.recorder import Recording
from cliprl.pipeline.live.segmentation.supervisor import Supervisor
from cliprl.pipeline.live.sink_thread import SinkThread
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.sources.errors import Problem

# Pictures a second while the camera gives none: its own rate, within these.
_SLOWEST, _FASTEST = 0.1, 0.02


def info_of(camera: LiveCapture) -> StreamInfo:
    """What is known of a camera; before its first picture, the size of the card."""
    return camera.info or StreamInfo(camera.label, *FIRST_SIZE, TIME_BASE, live=True)


class LiveStream:
    """Shows each frame of a camera at once, whatever becomes of the segmenter, the outputs and the camera itself.

    `run` is the display path. It ends with the source, or by `stop`. The newest frame is in `broadcast`;
    `outlets` get every picture, guarded. Leaving the stream (a context manager) ends all of its threads and processes.
    """

    def __init__(
        self,
        camera: LiveCapture,
        overlay: Overlay,
        supervisor: Supervisor | None = None,
        outlets: Sequence[SinkThread] = (),
        *,
        recordings: Sequence[Recording] = (),
        controls: Controls | None = None,
        promise: DisplayPolicy | None = None,
        name: str = "",
        playback: Playback | None = None,
        say: Callable[[str], None] = ignore_message,
    ) -> None:
        self.playback = playback
        self.camera, self.overlay, self.supervisor = camera, overlay, supervisor
        self.outlets, self.recordings = tuple(outlets), tuple(recordings)
        style = overlay.style
        self.controls = controls or Controls(overlay.classes, Settings(style.opacity, style.contours))
        self._display = DisplayLoop(
            camera,
            overlay,
            supervisor,
            self.outlets,
            self.recordings,
            self.controls,
            promise or DisplayPolicy(),
            name,
            say,
        )
        self.broadcast, self.recorder = self._display.broadcast, self._display.recorder
        self._interrupted, self._completed = threading.Event(), False

    @property
    def info(self) -> StreamInfo:
        """What is known of the source."""
        return info_of(self.camera)

    @property
    def description(self) -> str:
        """The name of the source."""
        return f"input   {self.info.name}"

    @property
    def written(self) -> list[int]:
        """Number of frames written to each output, in the order of the outputs."""
        return [outlet.written for outlet in self.outlets]

    def run(
        self, on_frame: Callable[[Frame, Segmentation | None], None] | None = None, *, frames: int | None = None
    ) -> Summary:
        """Display until the source ends, or `frames` of its frames. `on_frame` is called with each frame displayed."""
        with single_threaded(), self:
            for thread in self._threads:
                thread.start()
            while not self._interrupted.is_set() and self.recorder.frames != frames:
                self.camera.paused = self.controls.settings.paused
                resting = self.playback is not None and self.playback.resting
                captured = self.camera.next(self._tick())
                if captured is not None:
                    segmentation = self._display.show(captured)
                    if on_frame is not None:
                        on_frame(captured.frame, segmentation)
                elif self.camera.ended:
                    self._completed = not self._interrupted.is_set()
                    break
                elif self.camera.live:
                    self._display.show_absence()
                else:
                    if resting and self.playback is not None:
                        self.playback.finish()
                    self._display.redraw()
        self._raise_failure()
        return self.summary()

    def linger(self, until: threading.Event) -> None:
        """After the end: let the last picture follow the controls, until the event."""
        while not until.wait(_SLOWEST):
            self._display.redraw()

    def _raise_failure(self) -> None:
        """What was asked for and could not be had, once the picture has ended."""
        outputs: list[SinkThread | Recording] = [*self.outlets, *self.recordings]
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
        if self.playback:
            self.playback.close()

    def summary(self) -> Summary:
        """Figures of the run so far."""
        info = self.camera.info
        notes = [*(info.notes if info else ()), *(note for outlet in self.outlets for note in outlet.notes)]
        notes += [note for recording in self.recordings for note in recording.notes]
        dropped, damaged = self.camera.dropped, self.camera.damaged
        return self.recorder.summary(dropped=dropped, damaged=damaged, interrupted=self.interrupted, notes=notes)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called, be it before the input's end or after."""
        return self._interrupted.is_set()

    @property
    def interrupted(self) -> bool:
        """Whether it was stopped before the input's end. A file that was played to its end was not, also while it repeats."""
        played = self.playback is not None and self.playback.played
        return self._interrupted.is_set() and not (self._completed or played)

    @property
    def _threads(self) -> list[LiveCapture | Supervisor | SinkThread | Recording]:
        supervisors = [self.supervisor] if self.supervisor else []
        return [self.camera, *supervisors, *self.outlets, *self.recordings]

    def _tick(self) -> float:
        """Seconds to wait for the next frame, before the picture is looked after without it."""
        return min(max(self.camera.period, _FASTEST), _SLOWEST)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.broadcast.close()
        if self.playback:
            self.playback.close()
        for thread in self._threads:
            thread.close()
        self.recorder.end()
