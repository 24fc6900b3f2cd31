"""What the program itself puts into the picture when the camera does not: the mark of an old picture, and the card."""

from __future__ import annotations

import time
from collections.abc import Sequence

from cliprl.pipeline.core.buffers import BufferPool
from cliprl.pipeline.core.color import Color, rgb_to_yuv_matrix
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.overlay.blend import place
from cliprl.pipeline.overlay.text import letter_size, status_patch

_RED = (225, 30, 30)
_NIGHT = (16, 20, 26)
# The mark's border is this share of the picture's shorter side wide.
_BORDER = 1 / 48


class Marks:
    """Draws marks and cards. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._scratch = BufferPool()

    def stalled(self, frame: Frame, seconds: float, what: str = "CAMERA STALLED") -> None:
        """Mark a picture that is repeated and `seconds` old: a red border, and the words. In place."""
        border = max(round(min(frame.height, frame.width) * _BORDER) // 2 * 2, 2)
        for rows, columns in (
            (slice(0, border), slice(None)),
            (slice(-border, None), slice(None)),
            (slice(None), slice(0, border)),
            (slice(None), slice(-border, None)),
        ):
            _fill(frame, rows, columns, _RED)
        self.behind(frame, seconds, what)

    def behind(self, frame: Frame, seconds: float, what: str = "BEHIND") -> None:
        """Mark a picture that is `seconds` old, by words. In place."""
        self._centred(frame, [f"{what}: this picture is {seconds:.1f} s old"], 0.08)

    def card(self, frame: Frame, lines: Sequence[str]) -> None:
        """Replace the picture by a dark one with these lines in its middle. In place."""
        _fill(frame, slice(None), slice(None), _NIGHT)
        self._centred(frame, lines, 0.42)

    def _centred(self, frame: Frame, lines: Sequence[str], top: float) -> None:
        """Lines one below the other, from the share `top` of the displayed picture's height on."""
        sides = (frame.height, frame.width)
        height, width = sides[::-1] if frame.rotation % 180 else sides
        color = Color(frame.color.matrix, frame.color.full_range)
        y = round(height * top) // 2 * 2
        for line in lines:
            patch = status_patch(line, letter_size(height, width), color)
            place(frame, patch, max((width - patch.luma_keep.shape[1]) // 4 * 2, 0), y, self._scratch)
            y += len(patch.luma_keep) + 2


def _fill(frame: Frame, rows: slice, columns: slice, rgb: tuple[int, int, int]) -> None:
    """Fill a rectangle with even edges."""
    matrix, offset = rgb_to_yuv_matrix(frame.color.matrix, frame.color.full_range)
    luma, cb, cr = (round(value) for value in matrix @ rgb + offset)
    frame.luma[rows, columns] = luma
    frame.chroma[_halved(rows), _halved(columns)] = (cb, cr)


def _halved(part: slice) -> slice:
    start, stop = (None if edge is None else edge // 2 for edge in (part.start, part.stop))
    return slice(start, stop)


def away(name: str, problem: str, since: float) -> list[str]:
    """The lines of a card for a source that has been away since `since` (`time.time()`)."""
    clock = time.strftime("%H:%M:%S", time.localtime(since))
    return [f"No picture from {name}", problem, f"since {clock}, for {max(time.time() - since, 0):.0f} s"]
