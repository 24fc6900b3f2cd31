"""The pictures that are displayed and shared: with overlay, in blocks, marked as stalled, or a card."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cliprl.pipeline.frame import Frame
from cliprl.pipeline.live.controls import Controls
from cliprl.pipeline.live.guard import pixelated
from cliprl.pipeline.live.hub import Freshness
from cliprl.pipeline.live.marks import Marks
from cliprl.pipeline.live.masks import Chosen
from cliprl.pipeline.live.pool import PlanePool
from cliprl.pipeline.live.timeline import TIME_BASE
from cliprl.pipeline.overlay import Overlay

# The size (height, width) of the card before the first picture.
FIRST_SIZE = (720, 1280)
# An old mask's age is told to so many milliseconds, rounded up.
_AGE_STEP = 10


class Pictures:
    """Makes pictures out of frames, which it leaves as they are. For use by the display path's thread."""

    def __init__(self, overlay: Overlay, controls: Controls, name: str) -> None:
        self._overlay, self._controls, self._name = overlay, controls, name
        self._base = overlay.style
        self._marks, self._planes = Marks(), PlanePool()

    def overlaid(self, frame: Frame, chosen: Chosen) -> Frame:
        """The frame with mask, legend and status line, as the controls are set."""
        copy = self._planes.copy(frame)
        style = self._controls.settings.style(self._base, self._overlay.classes)
        if style != self._overlay.style:
            self._overlay.style = style
        self._overlay.draw(copy, chosen.segmentation, self._line(chosen))
        return copy

    def veiled(self, frame: Frame) -> tuple[Frame, Frame]:
        """The frame in blocks, as it is shared while the scope is out of the body; and the same with a line that says so."""
        raw = pixelated(frame)
        return raw, self.overlaid(raw, Chosen(Freshness.OFF, reason="out of the body"))

    def stalled(self, last: Frame, seconds: float, *, guarded: bool) -> tuple[Frame, Frame]:
        """The last frame, marked as `seconds` old, for the display; and as it is shared."""
        own = self._planes.copy(last)
        shared = pixelated(last) if guarded else own
        for picture in (own, shared) if guarded else (own,):
            self._marks.stalled(picture, seconds)
        return own, shared

    def card(self, last: Frame | None, lines: Sequence[str]) -> Frame:
        """A card of the size and colours of the last frame."""
        frame = Frame(*self._planes(*FIRST_SIZE), 0, TIME_BASE, 0) if last is None else self._planes.copy(last)
        self._marks.card(frame, lines)
        return frame

    def _line(self, chosen: Chosen) -> str:
        """The status line: whose mask this is."""
        if chosen.mask is Freshness.AGED and chosen.age_ms is not None:
            said = f"mask aged {math.ceil(chosen.age_ms / _AGE_STEP) * _AGE_STEP} ms"
        else:
            said = f"mask {chosen.mask}"
        if chosen.reason:
            said += f": {chosen.reason}" if chosen.mask is Freshness.OFF else f" ({chosen.reason})"
        return " · ".join((f"cliprl {self._name}".strip(), said, "research use only"))
