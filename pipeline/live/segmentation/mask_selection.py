"""Selection of the mask for a displayed frame: that of the frame itself, one moved to it along the motion, or none."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.live.broadcast import Freshness
from cliprl.pipeline.live.segmentation.supervisor import NumberedSegmentation, SegmentationState, Supervisor
from cliprl.pipeline.tracking.optical_flow import OpticalFlow, moved

# Frames whose capture times are kept.
_MEMORY = 64
# Seconds for which a past fault stays on screen: the spare worker takes over within a frame or two, too fast to read.
_SHOWN_S = 2.0


class SelectedMask(NamedTuple):
    """A segmentation in the frame's coordinates, its freshness and age in milliseconds; or the reason why there is none.

    For two seconds after a fault, `reason` also names that fault.
    """

    mask: Freshness
    segmentation: Segmentation | None = None
    age_ms: float | None = None
    reason: str = ""


class MaskSelector:
    """Offers frames for segmentation and selects the mask for each. Masks older than `max_age_ms` are not displayed.

    `wait_ms`: how long a frame waits for its own mask before it takes an older one; 0: not at all.
    """

    def __init__(self, supervisor: Supervisor, *, max_age_ms: float, wait_ms: float = 0.0) -> None:
        self._supervisor, self._max_age, self._wait = supervisor, max_age_ms, wait_ms / 1000
        self._motion = OpticalFlow()
        self._captured: deque[tuple[int, float]] = deque(maxlen=_MEMORY)
        self._past = _PastFault()

    def choose(self, number: int, frame: Frame) -> SelectedMask:
        """Offer frame `number` for segmentation, and select its mask. Numbers ascend."""
        self._supervisor.offer(number, frame)
        self._motion.add(number, frame)
        self._captured.append((number, frame.times["captured"]))
        state = self._supervisor.wait_for(number, self._wait) if self._wait else self._supervisor.state
        selected, past = self._select(state, number, frame), self._past.reason(state)
        return selected._replace(reason="; ".join(filter(None, (selected.reason, past))))

    def _select(self, state: SegmentationState, number: int, frame: Frame) -> SelectedMask:
        mask = state.mask
        if mask is None:
            return SelectedMask(Freshness.OFF, reason=state.reason)
        if mask.number == number:
            return SelectedMask(Freshness.FRESH, mask.segmentation, 0.0)
        return self._aged(mask, frame)

    def forget(self) -> None:
        """Discard all state, because the next frame is unrelated."""
        self._supervisor.forget()
        self._motion.forget()
        self._captured.clear()

    def _aged(self, mask: NumberedSegmentation, frame: Frame) -> SelectedMask:
        captured = next((moment for number, moment in self._captured if number == mask.number), None)
        if captured is None:
            return SelectedMask(Freshness.OFF, reason="the mask is of another image")
        age = (frame.times["captured"] - captured) * 1000
        if age > self._max_age:
            return SelectedMask(Freshness.OFF, reason=f"the newest mask is older than {self._max_age:g} ms")
        flow = self._motion.back_to(mask.number)
        if flow is None:
            return SelectedMask(Freshness.OFF, reason="the scene has changed")
        return SelectedMask(Freshness.AGED, moved(mask.segmentation, flow), age)


class _PastFault:
    """Keeps the last fault on screen for a readable time, from the first frame displayed after it."""

    def __init__(self) -> None:
        self._faults = 0
        self._until = 0.0

    def reason(self, state: SegmentationState) -> str:
        """Return the remark for this frame; empty while the fault lasts, which has a reason itself."""
        now = time.monotonic()
        if state.faults != self._faults and state.mask is not None:
            self._faults, self._until = state.faults, now + _SHOWN_S
        over = state.mask is not None and now < self._until
        return f"segmentation was off: {state.fault}" if over else ""
