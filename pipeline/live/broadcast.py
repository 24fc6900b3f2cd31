"""Where the display path leaves the newest picture, for any number of readers, none of whom can hold it up."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.live.lateness import BEHIND

# What is wrong where pictures are behind.
LATE = "pictures come late, or this machine is too slow for them"


class SourceState(StrEnum):
    """Where the source stands. BEHIND: it sends, and what is shown is older than it should be."""

    CONNECTING = "connecting"
    LIVE = "live"
    BEHIND = "behind"
    STALLED = "stalled"
    RECONNECTING = "reconnecting"
    ENDED = "ended"


class Freshness(StrEnum):
    """Whose mask a picture shows: its own, one of an earlier frame moved to it, or none."""

    FRESH = "fresh"
    AGED = "aged"
    OFF = "off"


class RecordState(StrEnum):
    """What becomes of the frames that a recording is given."""

    OFF = "off"
    STARTING = "starting"  # asked for, and no frame is on the disk yet
    RECORDING = "recording"
    FAILED = "failed"  # nothing can be written; it is tried again


@dataclass(frozen=True, slots=True)
class RecordingStatus:
    """How one recording stands: its kind ("raw", "overlay"), frames written and missed, faults, and the last fault's message."""

    kind: str
    state: RecordState = RecordState.OFF
    frames: int = 0
    missed: int = 0
    faults: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """What is true of one displayed picture.

    state: of the source, since `since` (`time.time()`), with `problem`, one line without credentials, while it is away.
    mask, age_ms: whose mask is shown and how many milliseconds older its frame is, None without one. reason: why there is
    none; or, for two seconds after a fault, why there was none. fps: camera frames displayed a second. captured: when what is
    shown would have arrived without any backlog, displayed: when it was first shown, both by `time.monotonic()`; None for a file
    and before the first frame. latency_ms: from one to the other, None for pictures that no camera gave. behind_s: how old the
    picture is, where the state is `behind`. dropped: camera frames that were never displayed; skipped: those of them that were
    left undecoded to catch up. reconnections, restarts: of the source and of the segmenter, so far. areas: share (0..1) of the
    endoscope's picture by class name, of the shown mask. out_of_body: the guard's word; `guarded` whether shared pictures are
    pixelated for it. recordings: how each recording stands. note: what the user has to know of outputs and recordings, such as a
    full disk, as long as it is true.
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
    out_of_body: bool = False
    guarded: bool = False
    recordings: tuple[RecordingStatus, ...] = ()
    note: str = ""

    @property
    def record_state(self) -> RecordState:
        """The state of all recordings together: that of the worst."""
        states = {recording.state for recording in self.recordings}
        order = (RecordState.FAILED, RecordState.STARTING, RecordState.RECORDING)
        return next((state for state in order if state in states), RecordState.OFF)

    @property
    def missed(self) -> int:
        """Frames that recordings miss so far."""
        return sum(recording.missed for recording in self.recordings)

    def age(self, now: float) -> float | None:
        """How old the picture is at `now`, in seconds; None where that is not known or means nothing."""
        return None if self.captured is None else max(now - self.captured, 0.0)

    def at(self, now: float) -> Status:
        """The status at `now` (`time.monotonic()`), where no newer picture has come: this one has grown older since."""
        age = self.age(now)
        if age is None or self.displayed is None:
            return self
        silent = now - self.displayed
        fps = min(self.fps, 1 / silent if silent > 0 else self.fps)
        if self.state is SourceState.LIVE and age > BEHIND:
            ago = age - BEHIND
            late = replace(self, state=SourceState.BEHIND, since=time.time() - ago, problem=LATE)
            return replace(late, fps=fps, behind_s=age, latency_ms=1000 * age)
        if self.state is SourceState.BEHIND:
            return replace(self, fps=fps, behind_s=age, latency_ms=1000 * age)
        return replace(self, fps=fps)


@dataclass(frozen=True, slots=True)
class DisplayedFrame:
    """One displayed picture. Its frames are never written again: whoever holds them may read them as long as they like.

    index: counts displayed pictures from 0. raw: as the camera gave it (a card while it is away). overlaid: with mask, legend,
    status line and marks. Both are for the surgeon's own display; what is recorded or sent elsewhere are `shared_raw` and
    `shared_overlaid`: the same frames, pixelated while the guard says that the scope is out of the body.
    camera: whether the camera gave it (False for cards and repeated pictures).
    """

    index: int
    raw: Frame
    overlaid: Frame
    shared_raw: Frame
    shared_overlaid: Frame
    status: Status
    camera: bool = True


class Broadcast:
    """Holds the newest displayed picture, and the one that was frozen for comparison, if any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: DisplayedFrame | None = None
        self._frozen: DisplayedFrame | None = None
        self._closed = False

    @property
    def newest(self) -> DisplayedFrame | None:
        """The picture displayed last; None before the first."""
        return self._newest

    @property
    def frozen(self) -> DisplayedFrame | None:
        """The still to compare with; None while nothing is frozen."""
        return self._frozen

    @property
    def closed(self) -> bool:
        """Whether the stream has ended; its last picture stays."""
        return self._closed

    def publish(self, shown: DisplayedFrame, *, freeze: bool = False) -> None:
        """Make `shown` the newest; the first picture published with `freeze` is kept until one comes without."""
        with self._changed:
            self._newest = shown
            self._frozen = (self._frozen or shown) if freeze else None
            self._changed.notify_all()

    def wait_newer(self, index: int, timeout: float) -> DisplayedFrame | None:
        """The newest picture once its index is larger than `index` (-1: any); None after `timeout` seconds or at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_newer(index), timeout)
            return self._newest if self._has_newer(index) else None

    def close(self) -> None:
        """The stream has ended: wake all readers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _has_newer(self, index: int) -> bool:
        return self._newest is not None and self._newest.index > index
