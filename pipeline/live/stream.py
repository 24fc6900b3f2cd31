"""The live stream: displays camera frames at once, independent of the segmenter, the outputs and the viewers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Self

from cliprl.engines import ignore_message
from cliprl.pipeline.core.interfaces import OnFrame, StreamInfo
from cliprl.pipeline.core.statistics import Summary
from cliprl.pipeline.core.thread_policy import prompt_switches, single_threaded
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.clock import TIME_BASE
from cliprl.pipeline.live.compositor import FIRST_SIZE
from cliprl.pipeline.live.controls import Controls, Settings
from cliprl.pipeline.live.display_loop import DisplayLoop, DisplayPolicy
from cliprl.pipeline.live.follow_control import FollowControl
from cliprl.pipeline.live.playback import Playback
from cliprl.pipeline.live.recording.recorder import Recording
from cliprl.pipeline.live.recording.shared_encoder import SharedEncoder, shared_encoder
from cliprl.pipeline.live.segmentation.supervisor import Supervisor
from cliprl.pipeline.live.sink_thread import SinkThread
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.sources.errors import Problem, SourceError

# The longest and the shortest time in seconds between two displayed frames while the camera delivers none.
_LONGEST_TICK, _SHORTEST_TICK = 0.1, 0.02
# Seconds by which playing a file must be late in all for a note.
_LEAST_DELAY = 1.0


def info_of(capture: LiveCapture) -> StreamInfo:
    """Return the properties of a source; before its first frame, with the size of the card."""
    return capture.info or StreamInfo(capture.label, *FIRST_SIZE, TIME_BASE, live=True)


class LiveStream:
    """Displays each camera frame at once. A context manager; leaving it ends all of its threads and processes.

    `run` is the display path. It ends with the source, or by `stop`. The newest frame is in `broadcast`, for any number of
    readers. `outputs` and `recordings` get every frame, pixelated while the endoscope is outside the body.
    """

    def __init__(
        self,
        capture: LiveCapture,
        overlay: Overlay,
        supervisor: Supervisor | None = None,
        outputs: Sequence[SinkThread] = (),
        *,
        recordings: Sequence[Recording] = (),
        controls: Controls | None = None,
        policy: DisplayPolicy | None = None,
        name: str = "",
        playback: Playback | None = None,
        log: Callable[[str], None] = ignore_message,
    ) -> None:
        self.playback = playback
        self.capture, self.overlay, self.supervisor = capture, overlay, supervisor
        self.outputs, self.recordings = tuple(outputs), tuple(recordings)
        self._encoder = shared_encoder(self.outputs, self.recordings, lambda: self.info)
        style = overlay.style
        self.controls = controls or Controls(overlay.classes, Settings.of(style, overlay.classes))
        self._display = DisplayLoop(
            capture,
            overlay,
            supervisor,
            self.outputs,
            self.recordings,
            self._encoder,
            self.controls,
            policy or DisplayPolicy(),
            name,
            log,
        )
        self.broadcast, self.recorder = self._display.broadcast, self._display.recorder
        self._interrupted, self._completed = threading.Event(), False

    @property
    def info(self) -> StreamInfo:
        """The properties of the source."""
        return info_of(self.capture)

    @property
    def description(self) -> str:
        """The name of the source."""
        return f"input   {self.info.name}"

    @property
    def follow(self) -> FollowControl | None:
        """What viewers follow; None if instruments are not tracked."""
        return self.supervisor.follow if self.supervisor else None

    @property
    def written(self) -> list[int]:
        """Number of frames written to each output, in the order of the outputs."""
        return [output.written for output in self.outputs]

    def run(self, on_frame: OnFrame | None = None, *, frames: int | None = None) -> Summary:
        """Display until the source ends, or `frames` of its frames. `on_frame` is called with each camera frame.

        Raises the error that ended the source, or the first fault of a file output or a recording, after everything is closed.
        """
        with single_threaded(), prompt_switches(), self:
            for thread in self._threads:
                thread.start()
            while not self._interrupted.is_set() and self.recorder.frames != frames:
                self.capture.paused = self.controls.settings.paused
                at_end = self.playback is not None and self.playback.at_end
                captured = self.capture.next(self._tick())
                if captured is not None:
                    segmentation = self._display.show(captured)
                    if on_frame is not None:
                        on_frame(captured.frame, segmentation)
                elif self.capture.ended:
                    self._completed = not self._interrupted.is_set()
                    break
                elif self.capture.live:
                    self._display.show_absence()
                else:
                    if at_end and self.playback is not None:
                        self.playback.finish()
                    self._display.redraw()
        self._raise_failure()
        return self.summary()

    def linger(self, until: threading.Event) -> None:
        """After the end, redraw the last frame when the controls change, until the event."""
        while not until.wait(_LONGEST_TICK):
            self._display.redraw()

    def _raise_failure(self) -> None:
        files: list[SinkThread | Recording] = [output for output in self.outputs if not output.network]
        failures = [output.failure for output in [*files, *self.recordings] if output.failure]
        lost = None if self._interrupted.is_set() else self.capture.error
        if lost is not None and not (isinstance(lost, SourceError) and lost.problem is Problem.ENDED):
            failures.append(lost)
        failures += [output.failure for output in self.outputs if output.network and output.failure]
        if failures:
            raise failures[0]

    def stop(self) -> None:
        """End the run in good order. For any thread or a signal handler."""
        self._interrupted.set()
        self.capture.stop()
        if self.playback:
            self.playback.close()

    def summary(self) -> Summary:
        """Return the statistics of the run so far."""
        info = self.capture.info
        notes = [*(info.notes if info else ()), *(note for output in self.outputs for note in output.notes)]
        notes += [note for recording in self.recordings for note in recording.notes]
        if not self.capture.live and self.capture.delayed > _LEAST_DELAY:
            notes.append(
                f"playing took {self.capture.delayed:.1f} s longer than at the input's own rate: rendering, reading or showing "
                "it was too slow, and what was recorded has fewer frames a second"
            )
        missing, frames = self._display.without_mask, self.recorder.frames
        if self.supervisor is not None and missing:
            state = self.supervisor.state
            if state.faults or missing > frames / 2:
                reason = state.fault or state.reason or "it came too late"
                notes.append(f"{missing} of {frames} frames have no mask: {reason}")
        dropped, damaged = self.capture.dropped, self.capture.damaged
        return self.recorder.summary(dropped=dropped, damaged=damaged, interrupted=self.interrupted, notes=notes)

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called, before or after the input's end."""
        return self._interrupted.is_set()

    @property
    def paced(self) -> bool:
        """Whether frames are processed at the rate of the source, so that the source limits the frame rate."""
        return True

    @property
    def displays(self) -> bool:
        """Whether frames are displayed that outputs may lose."""
        return True

    @property
    def interrupted(self) -> bool:
        """Whether the run was stopped before the input's end. A file that was played to its end was not interrupted."""
        played = self.playback is not None and self.playback.played
        return self._interrupted.is_set() and not (self._completed or played)

    @property
    def _threads(self) -> list[LiveCapture | Supervisor | SharedEncoder | SinkThread | Recording]:
        """In the order in which frames pass them."""
        supervisors = [self.supervisor] if self.supervisor else []
        encoders = [self._encoder] if self._encoder else []
        return [self.capture, *supervisors, *encoders, *self.outputs, *self.recordings]

    def _tick(self) -> float:
        """Return the seconds to wait for a frame before the display is updated without one."""
        return min(max(self.capture.period, _SHORTEST_TICK), _LONGEST_TICK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.broadcast.close()
        if self.playback:
            self.playback.close()
        for thread in self._threads:
            thread.close()
        self.recorder.end()
