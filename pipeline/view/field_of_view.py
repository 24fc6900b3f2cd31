"""Finds the endoscope's image in a frame: a bright disc on black, a rectangle inside black bars, or all of it.

The frame is read along 16 horizontal and 16 vertical strips, a few lines wide. On each, the image's two ends are looked
for from the outside inwards. A disc and a rectangle are fitted to these ends robustly, and the one that explains more of
them wins. Text in the black corners and dark parts of the scene give ends that fit neither, and are outvoted.
"""

from __future__ import annotations

import numpy as np

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.viewport import Circle, Viewport, circle_viewport, fit_viewport, full_viewport
from cliprl.pipeline.view.shape_fit import (
    Ends,
    Rectangle,
    edge_ends,
    find_ends,
    fit_disc,
    fit_rectangle,
    follow_disc,
    has_strips,
)

# A shape is believed when it explains this share of the ends.
BELIEF = 0.5
# The image has moved when its edges have by this share of the frame's longer side; less is jitter.
JITTER = 0.003
# A move by more than this share is no move but another image, or a dark moment: it has to last CONFIRMING_FRAMES.
LEAP = 0.05
CONFIRMING_FRAMES = 5
# The image is where it was as long as no more than this share of the ends on its edge have moved: then nothing is fitted.
STRAY = 1 / 4

FieldShape = Circle | Rectangle


class FieldOfViewDetector:
    """Follows the endoscope's image through a stream. One detector a stream; frames in their order."""

    def __init__(self, network_height: int, network_width: int) -> None:
        self._network = (network_height, network_width)
        self._view: Viewport | None = None
        self._shape: FieldShape | None = None
        self._pending: FieldShape | None = None
        self._waited = 0
        self._edge: _Edge | None = None

    @property
    def undecided(self) -> bool:
        """Whether a shape that leaps has been found and must last before the view follows it."""
        return self._pending is not None

    def view_of(self, frame: Frame) -> Viewport:
        """The view of this frame. The same object as the last frame's, as long as the image has not moved."""
        size = (frame.height, frame.width)
        ends = find_ends(frame.luma, full_range=frame.color.full_range) if has_strips(*size) else None
        return self.follow(ends, size)

    def follow(self, ends: Ends | None, size: tuple[int, int]) -> Viewport:
        """The view of a frame of `size` (height, width) with the image's ends; None where it is too narrow for any."""
        if self._view is None or (self._view.frame_height, self._view.frame_width) != size:
            self._view, self._shape, self._pending = full_viewport(*size, *self._network), None, None
            self._edge = None
        if ends is None or (self._edge is not None and not self.undecided and self._edge.is_still(ends, max(size))):
            return self._view
        found = shape_of(ends, max(size), self._shape)
        if found is not None and self._accepts(found, max(size)):
            self._shape, self._pending = found, None
            self._view, self._edge = _view(found, size, self._network), _Edge(found, ends)
        return self._view

    def _accepts(self, found: FieldShape, longer: int) -> bool:
        """Whether the image is to be moved to where it was found in this frame."""
        if self._shape is None:
            return True
        distance = _distance(found, self._shape)
        if distance <= LEAP * longer:
            self._pending = None
            return distance > JITTER * longer
        same = self._pending is not None and _distance(found, self._pending) <= LEAP * longer
        self._waited = self._waited + 1 if same else 1
        self._pending = found
        return self._waited >= CONFIRMING_FRAMES


class _Edge:
    """The ends on the edge of a shape, as they were when it was fitted."""

    def __init__(self, shape: FieldShape, ends: Ends) -> None:
        self._on = edge_ends(shape, ends)
        self._places = ends.places[self._on]

    def is_still(self, ends: Ends, longer: int) -> bool:
        """Whether nearly all of them are where they were; `longer` is the longer side of the frame in pixels."""
        near = np.abs(ends.places[self._on] - self._places) <= JITTER * longer
        return bool(np.count_nonzero(near) >= (1 - STRAY) * max(len(near), 1))


def shape_of(ends: Ends, longer: int, last: FieldShape | None) -> FieldShape | None:
    """The shape that explains the ends in a frame whose longer side is `longer` pixels; None where none does."""
    if not ends.valid.any():
        return None
    if last is not None and len(last) == 3 and (followed := follow_disc(last, ends, longer)) is not None:
        return followed
    sides = fit_rectangle(ends)
    if sides is not None and sides.share == 1:
        return sides.rectangle()
    disc = fit_disc(ends, longer)
    if disc is not None and (sides is None or disc[1] > sides.share):
        return disc[0] if disc[1] >= BELIEF else None
    return sides.rectangle() if sides is not None and sides.share >= BELIEF else None


def _distance(a: FieldShape, b: FieldShape) -> float:
    """The largest difference of two shapes of one kind in any of their numbers, in pixels; infinite between kinds."""
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) if len(a) == len(b) else float("inf")


def _view(shape: FieldShape, size: tuple[int, int], network: tuple[int, int]) -> Viewport:
    if len(shape) == 3:
        return circle_viewport(size, network, shape)
    left, top, right, bottom = (round(v) for v in shape)
    return fit_viewport(size, network, (left, top, right - left, bottom - top))
