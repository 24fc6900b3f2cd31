"""Which mask a displayed frame gets: the newest that belongs to it, or can honestly be moved to it, or none."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.live.broadcast import Freshness
from cliprl.pipeline.live.segmentation.optical_flow import OpticalFlow, moved
from cliprl.pipeline.live.segmentation.supervisor import Mask, SegmentationState, Supervisor

# Frames whose capture times are remembered.
_MEMORY = 64
# Seconds for which a fault that is over is still told: a spare takes over within a frame or two, which nobody can read.
_TOLD = 2.0


class SelectedMask(NamedTuple):
    """A segmentation as it lies in the frame, whose it is and how many milliseconds older that frame was; or why none.

    `reason` also tells, for a moment, why there was none before.
    """

    mask: Freshness
    segmentation: Segmentation | None = None
    age_ms: float | None = None
    reason: str = ""


class MaskSelector:
    """Has frames segmented and picks the mask for each. `max_age_ms`: what is older is not shown, moved or not.

    `wait_ms`: how long a frame waits for its own mask before it takes an older one; 0: never.
    """

    def __init__(self, supervisor: Supervisor, *, max_age_ms: float, wait_ms: float = 0.0) -> None:
        self._supervisor, self._max_age, self._wait = supervisor, max_age_ms, wait_ms / 1000
        self._motion = OpticalFlow()
        self._captured: deque[tuple[int, float]] = deque(maxlen=_MEMORY)
        self._past = _Past()

    def choose(self, number: int, frame: Frame) -> SelectedMask:
        """Offer frame `number` for segmentation, and pick its mask. Numbers ascend."""
        self._supervisor.offer(number, frame)
        self._motion.add(number, frame)
        self._captured.append((number, frame.times["captured"]))
        outcome = self._supervisor.wait_for(number, self._wait) if self._wait else self._supervisor.outcome
        chosen, past = self._chosen(outcome, number, frame), self._past.words(outcome)
        return chosen._replace(reason="; ".join(filter(None, (chosen.reason, past))))

    def _chosen(self, outcome: SegmentationState, number: int, frame: Frame) -> SelectedMask:
        mask = outcome.mask
        if mask is None:
            return SelectedMask(Freshness.OFF, reason=outcome.reason)
        if mask.number == number:
            return SelectedMask(Freshness.FRESH, mask.segmentation, 0.0)
        return self._aged(mask, frame)

    def forget(self) -> None:
        """The next frame has nothing to do with the last one."""
        self._supervisor.forget()
        self._motion.forget()
        self._captured.clear()

    def _aged(self, mask: Mask, frame: Frame) -> SelectedMask:
        captured = next((moment for number, moment in self._captured if number == mask.number), None)
        if captured is None:
            return SelectedMask(Freshness.OFF, reason="the mask is of another picture")
        age = (frame.times["captured"] - captured) * 1000
        if age > self._max_age:
            return SelectedMask(Freshness.OFF, reason=f"the newest mask is older than {self._max_age:g} ms")
        flow = self._motion.back_to(mask.number)
        if flow is None:
            return SelectedMask(Freshness.OFF, reason="the scene has changed")
        return SelectedMask(Freshness.AGED, moved(mask.segmentation, flow), age)


class _Past:
    """Tells of the last fault for a readable time, from the first picture on that is displayed after it."""

    def __init__(self) -> None:
        self._faults = 0
        self._until = 0.0

    def words(self, outcome: SegmentationState) -> str:
        """What to say on this picture; nothing while the fault lasts, which is told as it is."""
        now = time.monotonic()
        if outcome.faults != self._faults and outcome.mask is not None:
            self._faults, self._until = outcome.faults, now + _TOLD
        over = outcome.mask is not None and now < self._until
        return f"segmentation was off: {outcome.fault}" if over else ""
