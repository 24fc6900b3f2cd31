"""The newest displayed frame and its status, for any number of readers that never delay the display path."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cliprl.pipeline.core.confidence import Reliability
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Followed
from cliprl.pipeline.live.lateness import BEHIND

# The problem of a stream that is behind.
LATE_MESSAGE = "frames arrive late: the network, this machine or the camera's clock is too slow"


class SourceState(StrEnum):
    """State of the source. BEHIND: frames arrive, but the displayed ones are too old."""

    CONNECTING = "connecting"
    LIVE = "live"
    BEHIND = "behind"
    STALLED = "stalled"
    RECONNECTING = "reconnecting"
    ENDED = "ended"


class Freshness(StrEnum):
    """Freshness of a mask: FRESH is of the displayed frame, AGED is of an earlier frame and moved, OFF is no mask."""

    FRESH = "fresh"
    AGED = "aged"
    OFF = "off"


class RecordState(StrEnum):
    """State of a recording."""

    OFF = "off"
    STARTING = "starting"  # requested, but no frame is on the disk yet
    RECORDING = "recording"
    FAILED = "failed"  # nothing can be written; it is retried


@dataclass(frozen=True, slots=True)
class RecordingStatus:
    """State of one recording: its kind ("raw", "overlay"), counts of frames and faults, and the last fault's message."""

    kind: str
    state: RecordState = RecordState.OFF
    frames: int = 0
    missed: int = 0
    faults: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """The status of the stream at one displayed frame.

    state: of the source, since `since` (`time.time()`); `problem` is one line without credentials. mask, age_ms: freshness of
    the mask and its age in milliseconds, None without one. reason: why there is no mask, or, for two seconds after a fault,
    why there was none. fps: displayed camera frames per second. captured: when the frame would have arrived without any
    backlog; displayed: when it was first displayed; both by `time.monotonic()`, None for a file and before the first frame.
    latency_ms: the difference, None for repeated frames and cards. behind_s: age of the frame in state BEHIND. dropped: camera
    frames never displayed; skipped: those of them that were not decoded, to catch up. reconnections, restarts: counts for
    source and segmenter. areas: share (0..1) of the field of view by class name, of the displayed mask. presence: of the classes
    that are left out where they are absent, by name, see `Segmentation`. reliability: of that mask. followed: the
    instrument that is followed, lost also while there is no mask; None if there is none. out_of_body: the
    guard's decision; guarded: whether shared frames are pixelated. note: problems of outputs and recordings, such as a full
    disk, while they last.
    """

    state: SourceState = SourceState.CONNECTING
    since: float = 0.0
    problem: str = ""
    mask: Freshness = Freshness.OFF
    age_ms: float | None = None
    reason: str = ""
    fps: float = 0.0
    captured: float | None = None
    displayed: float | None = None
    latency_ms: float | None = None
    behind_s: float | None = None
    dropped: int = 0
    skipped: int = 0
    reconnections: int = 0
    restarts: int = 0
    areas: Mapping[str, float] = field(default_factory=dict)
    presence: Mapping[str, float] = field(default_factory=dict)
    reliability: Reliability | None = None
    followed: Followed | None = None
    out_of_body: bool = False
    guarded: bool = False
    recordings: tuple[RecordingStatus, ...] = ()
    note: str = ""

    @property
    def record_state(self) -> RecordState:
        """The worst state of all recordings."""
        states = {recording.state for recording in self.recordings}
        order = (RecordState.FAILED, RecordState.STARTING, RecordState.RECORDING)
        return next((state for state in order if state in states), RecordState.OFF)

    @property
    def missed(self) -> int:
        """Frames missing in recordings so far."""
        return sum(recording.missed for recording in self.recordings)

    def age(self, now: float) -> float | None:
        """Return the age of the frame at `now` in seconds; None for a file and before the first frame."""
        return None if self.captured is None else max(now - self.captured, 0.0)

    def at(self, now: float) -> Status:
        """Return the status at `now` (`time.monotonic()`) if no newer frame has arrived: age, rate and state change."""
        age = self.age(now)
        if age is None or self.displayed is None:
            return self
        silent = now - self.displayed
        fps = min(self.fps, 1 / silent if silent > 0 else self.fps)
        if self.state is SourceState.LIVE and age > BEHIND:
            ago = age - BEHIND
            late = replace(self, state=SourceState.BEHIND, since=time.time() - ago, problem=LATE_MESSAGE)
            return replace(late, fps=fps, behind_s=age, latency_ms=1000 * age)
        if self.state is SourceState.BEHIND:
            return replace(self, fps=fps, behind_s=age, latency_ms=1000 * age)
        return replace(self, fps=fps)


@dataclass(frozen=True, slots=True)
class DisplayedFrame:
    """One displayed frame. Its planes never change, so readers may keep them.

    index: counts displayed frames from 0. raw: the camera frame, or a card while the camera is away. overlaid: with mask,
    legend, status line and marks. Both are for the surgeon's display. `shared_raw` and `shared_overlaid`, which are recorded
    or sent, are the same frames, pixelated while the endoscope is outside the body. from_camera: False for cards and repeats.
    """

    index: int
    raw: Frame
    overlaid: Frame
    shared_raw: Frame
    shared_overlaid: Frame
    status: Status
    from_camera: bool = True


class Broadcast:
    """Holds the newest displayed frame, and the one frozen for comparison. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: DisplayedFrame | None = None
        self._frozen: DisplayedFrame | None = None
        self._closed = False

    @property
    def newest(self) -> DisplayedFrame | None:
        """The newest displayed frame; None before the first."""
        return self._newest

    @property
    def frozen(self) -> DisplayedFrame | None:
        """The frozen frame; None while nothing is frozen."""
        return self._frozen

    @property
    def closed(self) -> bool:
        """Whether the stream has ended; its last frame stays."""
        return self._closed

    def publish(self, shown: DisplayedFrame, *, freeze: bool = False) -> None:
        """Make `shown` the newest. The first frame published with `freeze` stays frozen until one is published without."""
        with self._changed:
            self._newest = shown
            self._frozen = (self._frozen or shown) if freeze else None
            self._changed.notify_all()

    def wait_newer(self, index: int, timeout: float) -> DisplayedFrame | None:
        """Wait for a frame with an index above `index` (-1: any). Return None after `timeout` seconds or at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_newer(index), timeout)
            return self._newest if self._has_newer(index) else None

    def close(self) -> None:
        """Mark the stream as ended and wake all readers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_newer(self, index: int) -> bool:
        return self._newest is not None and self._newest.index > index
