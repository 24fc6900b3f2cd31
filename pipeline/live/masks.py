"""Which mask a displayed frame gets: the newest that belongs to it, or can honestly be moved to it, or none."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from cliprl.pipeline.frame import Frame
from cliprl.pipeline.live.hub import Freshness
from cliprl.pipeline.live.motion import Motion, moved
from cliprl.pipeline.live.supervisor import Mask, Supervisor
from cliprl.pipeline.segmentation import Segmentation

# Frames whose capture times are remembered.
_MEMORY = 64


class Chosen(NamedTuple):
    """A segmentation as it lies in the frame, whose it is and how many milliseconds older that frame was; or why none."""

    mask: Freshness
    segmentation: Segmentation | None = None
    age_ms: float | None = None
    reason: str = ""


class Masks:
    """Has frames segmented and picks the mask for each. `max_age_ms`: what is older is not shown, moved or not.

    `wait_ms`: how long a frame waits for its own mask before it takes an older one; 0: never.
    """

    def __init__(self, supervisor: Supervisor, *, max_age_ms: float, wait_ms: float = 0.0) -> None:
        self._supervisor, self._max_age, self._wait = supervisor, max_age_ms, wait_ms / 1000
        self._motion = Motion()
        self._captured: deque[tuple[int, float]] = deque(maxlen=_MEMORY)

    def choose(self, number: int, frame: Frame) -> Chosen:
        """Offer frame `number` for segmentation, and pick its mask. Numbers ascend."""
        self._supervisor.offer(number, frame)
        self._motion.add(number, frame)
        self._captured.append((number, frame.times["captured"]))
        mask = self._supervisor.wait_for(number, self._wait) if self._wait else self._supervisor.newest
        if mask is None:
            return Chosen(Freshness.OFF, reason=self._supervisor.reason)
        if mask.number == number:
            return Chosen(Freshness.FRESH, mask.segmentation, 0.0)
        return self._aged(mask, frame)

    def forget(self) -> None:
        """The next frame has nothing to do with the last one."""
        self._supervisor.forget()
        self._motion.forget()
        self._captured.clear()

    def _aged(self, mask: Mask, frame: Frame) -> Chosen:
        captured = next((moment for number, moment in self._captured if number == mask.number), None)
        if captured is None:
            return Chosen(Freshness.OFF, reason="the mask is of another picture")
        age = (frame.times["captured"] - captured) * 1000
        if age > self._max_age:
            return Chosen(Freshness.OFF, reason=f"the newest mask is older than {self._max_age:g} ms")
        flow = self._motion.back_to(mask.number)
        if flow is None:
            return Chosen(Freshness.OFF, reason="the scene has changed")
        return Chosen(Freshness.AGED, moved(mask.segmentation, flow), age)
