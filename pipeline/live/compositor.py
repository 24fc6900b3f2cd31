"""Composition of displayed and shared frames: overlay, pixelation, marks for late frames, and cards without an image."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from cliprl.pipeline.core.buffers import BufferPool
from cliprl.pipeline.core.color import ColorSpace, rgb_to_yuv_matrix
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.live.broadcast import Freshness, SourceState
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.clock import TIME_BASE
from cliprl.pipeline.live.controls import Controls
from cliprl.pipeline.live.plane_pool import PlanePool
from cliprl.pipeline.live.segmentation.mask_selection import SelectedMask
from cliprl.pipeline.overlay.overlay import Overlay, place
from cliprl.pipeline.overlay.text import letter_size, status_patch
from cliprl.pipeline.tracking.follow import followed_text
from cliprl.pipeline.view.privacy_guard import pixelated

# The size (height, width) of the card before the first frame.
FIRST_SIZE = (720, 1280)
# The displayed age of a mask is rounded up to a multiple of this many milliseconds.
_AGE_STEP = 10
_RED = (225, 30, 30)
_DARK = (16, 20, 26)
# Width of the border of a stalled frame, as a share of the frame's shorter side.
_BORDER = 1 / 48


class Compositor:
    """Makes new frames and leaves its inputs unchanged. For the display path's thread."""

    def __init__(self, overlay: Overlay, controls: Controls, name: str) -> None:
        self._overlay, self._controls, self._name = overlay, controls, name
        self._base_style = overlay.style
        self._marks, self._planes = Marks(), PlanePool()

    def overlaid(self, frame: Frame, selected: SelectedMask, behind: float | None = None) -> Frame:
        """Return the frame with mask, legend and status line as the controls are set. `behind`: its age in seconds, if late."""
        copy = self._planes.copy(frame)
        style = self._controls.settings.style(self._base_style, self._overlay.classes)
        if style != self._overlay.style:
            self._overlay.style = style
        self._overlay.draw(copy, selected.segmentation, self._status_line(selected))
        if behind is not None:
            self._marks.behind(copy, behind)
        return copy

    def out_of_body(self, frame: Frame, behind: float | None = None) -> tuple[Frame, Frame]:
        """Return the pixelated frame that is shared while the endoscope is outside the body, without and with overlay."""
        raw = pixelated(frame)
        return raw, self.overlaid(raw, SelectedMask(Freshness.OFF, reason="out of the body"), behind)

    def absence(self, capture: LiveCapture, last: Frame | None, *, guarded: bool) -> tuple[Frame, Frame, str]:
        """Return the frames to display and to share while the camera delivers none, and why there is no mask.

        A stalled or late camera's last frame is marked with its age; otherwise a card replaces it, in its size and colors.
        """
        status = capture.status
        if status.state is SourceState.STALLED and last is not None:
            own, shared, reason = *self._marked(last, "CAMERA STALLED", guarded), "the camera has stalled"
        elif status.state is SourceState.BEHIND and last is not None:
            own, shared, reason = *self._marked(last, "BEHIND", guarded), "this machine is too slow"
        else:
            own = self._card(last, card_lines(capture.label, f"{status.state}: {status.problem}", status.since))
            shared, reason = own, "there is no image"
        for frame in (own, shared):
            frame.times, frame.durations, frame.threads = {}, {}, {}
        return own, shared, reason

    def _marked(self, last: Frame, title: str, guarded: bool) -> tuple[Frame, Frame]:
        own, seconds = self._planes.copy(last), time.monotonic() - last.times["captured"]
        shared = pixelated(last) if guarded else own
        for frame in (own, shared) if guarded else (own,):
            self._marks.stalled(frame, seconds, title)
        return own, shared

    def _card(self, last: Frame | None, lines: Sequence[str]) -> Frame:
        frame = Frame(*self._planes(*FIRST_SIZE), 0, TIME_BASE, 0) if last is None else self._planes.copy(last)
        self._marks.card(frame, lines)
        return frame

    def _status_line(self, selected: SelectedMask) -> str:
        """Return the status line, which states the mask's freshness."""
        if selected.mask is Freshness.AGED and selected.age_ms is not None:
            mask = f"mask aged {math.ceil(selected.age_ms / _AGE_STEP) * _AGE_STEP} ms"
        else:
            mask = f"mask {selected.mask}"
        if selected.reason:
            mask += f": {selected.reason}" if selected.mask is Freshness.OFF else f" ({selected.reason})"
        found = selected.segmentation
        marks = (found.mark, mask, followed_text(found.instances)) if found else (mask,)
        return " · ".join(filter(None, (f"cliprl {self._name}".strip(), *marks, "research use only")))


class Marks:
    """Draws marks and cards into frames, in place. For one thread at a time."""

    def __init__(self) -> None:
        self._buffers = BufferPool()

    def stalled(self, frame: Frame, seconds: float, title: str = "CAMERA STALLED") -> None:
        """Mark a repeated frame that is `seconds` old with a red border and text."""
        border = max(round(min(frame.height, frame.width) * _BORDER) // 2 * 2, 2)
        for rows, columns in (
            (slice(0, border), slice(None)),
            (slice(-border, None), slice(None)),
            (slice(None), slice(0, border)),
            (slice(None), slice(-border, None)),
        ):
            _fill(frame, rows, columns, _RED)
        self.behind(frame, seconds, title)

    def behind(self, frame: Frame, seconds: float, title: str = "BEHIND") -> None:
        """Mark a frame that is `seconds` old with text."""
        self._write_centered(frame, [f"{title}: this image is {seconds:.1f} s old"], 0.08)

    def card(self, frame: Frame, lines: Sequence[str]) -> None:
        """Replace the frame's content by a dark card with these lines."""
        _fill(frame, slice(None), slice(None), _DARK)
        self._write_centered(frame, lines, 0.42)

    def _write_centered(self, frame: Frame, lines: Sequence[str], top: float) -> None:
        """Write lines one below the other, from the share `top` of the displayed height."""
        sides = (frame.height, frame.width)
        height, width = sides[::-1] if frame.rotation % 180 else sides
        color = ColorSpace(frame.color.matrix, frame.color.full_range)
        y = round(height * top) // 2 * 2
        for line in lines:
            patch = status_patch(line, letter_size(height, width), color)
            place(frame, patch, max((width - patch.luma_keep.shape[1]) // 4 * 2, 0), y, self._buffers)
            y += len(patch.luma_keep) + 2


def card_lines(name: str, problem: str, since: float) -> list[str]:
    """Return the lines of a card for a source that has been away since `since` (`time.time()`)."""
    clock = time.strftime("%H:%M:%S", time.localtime(since))
    return [f"No image from {name}", problem, f"since {clock}, for {max(time.time() - since, 0):.0f} s"]


def _fill(frame: Frame, rows: slice, columns: slice, rgb: tuple[int, int, int]) -> None:
    """Fill a rectangle whose edges are even."""
    matrix, offset = rgb_to_yuv_matrix(frame.color.matrix, frame.color.full_range)
    luma, cb, cr = (round(value) for value in matrix @ rgb + offset)
    frame.luma[rows, columns] = luma
    frame.chroma[_halved(rows), _halved(columns)] = (cb, cr)


def _halved(part: slice) -> slice:
    start, stop = (None if edge is None else edge // 2 for edge in (part.start, part.stop))
    return slice(start, stop)
