"""Follows one instrument, which a point or a few words choose; it is lost rather than mistaken for another."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, UsageError
from cliprl.pipeline.core.segmentation import Followed, FollowState, Instance, Instances, Segmentation
from cliprl.pipeline.core.viewport import Viewport, frame_to_network, map_points

# Frames in which the same instrument must suit the words, and its least confidence, until it is followed.
_CREDIBLE_FRAMES, _CREDIBLE = 5, 0.4
# The least share of its cells that a part must have, so that words which name the part suit the instrument.
_LEAST_PART = 0.03
# Cells around a point in which an instrument is looked for.
_REACH = 2
_POINT = re.compile(r"(\d{1,12})#(\d{1,12}),(\d{1,12})")
# Words for a side, with the sign of x and of y by which the candidates are ordered.
_SIDES = {"left": (1, 0), "right": (-1, 0), "upper": (0, 1), "top": (0, 1), "lower": (0, -1), "bottom": (0, -1)}


@dataclass(frozen=True, slots=True)
class FollowTarget:
    """What to follow: a point (frame index, x, y in pixels of the stored frame), or classes on a side of the image.

    sides: signs of x and y by which candidates are ordered. classes: ids of classes, empty for every instrument.
    """

    text: str
    point: tuple[int, int, int] | None = None
    sides: tuple[int, int] = (0, 0)
    classes: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str, classes: Sequence[ClassSpec]) -> FollowTarget:
        """Read "FRAME#X,Y", or words such as "left instrument" or "clasper". Raises UsageError for anything else."""
        if match := _POINT.fullmatch(text.strip()):
            frame, x, y = map(int, match.groups())
            return cls(text, (frame, x, y))
        words = _words_of(text)
        sides = [_SIDES[word] for word in words if word in _SIDES]
        named = [word for word in words if word not in _SIDES and word not in ("instrument", "the", "a", "tool")]
        instruments = {i: spec for i, spec in enumerate(classes) if spec.kind == "instrument"}
        chosen = _named(named, {i: [spec.name] for i, spec in instruments.items()})
        # The texts of a class hold its synonyms, as "the metal jaws of a grasper".
        chosen = chosen or _named(named, {i: spec.prompts for i, spec in instruments.items()})
        if not words or (named and not chosen):
            raise UsageError(
                f"can't follow '{text}': give FRAME#X,Y, or left, right, upper or lower with instrument or one of "
                f"{', '.join(spec.name for spec in instruments.values())}; --prompt adds a class"
            )
        x, y = (sum(side[axis] for side in sides) for axis in (0, 1))
        return cls(text, None, (x, y), frozenset(chosen))


def _words_of(text: str) -> list[str]:
    return [word.removesuffix("s") for word in re.split(r"[-_ ,]+", text.casefold()) if word]


def _named(words: Sequence[str], texts: Mapping[int, Sequence[str]]) -> set[int]:
    """Return the classes that have a text with all words; the plural of a word is the word."""
    return {i for i, lines in texts.items() if words and any(set(words) <= set(_words_of(line)) for line in lines)}


@dataclass(slots=True)
class Follower:
    """Chooses the instrument of a target, and tells in every frame whether it is in view."""

    target: FollowTarget
    id: int = 0
    _credible: dict[int, int] = field(default_factory=dict)
    _last: tuple[int, Viewport] | None = None
    _frames: int = 0

    def note(self) -> str | None:
        """Return why nothing was followed, or None if the target was found or no frame has been seen."""
        if self.id or self._last is None:
            return None
        return f"'{self.target.text}' was not followed: {self._reason(*self._last)}"

    def _reason(self, last: int, view: Viewport) -> str:
        if self.target.point is None:
            if self._frames < _CREDIBLE_FRAMES:
                return f"words need {_CREDIBLE_FRAMES} frames in a row, and {self._frames} came; give FRAME#X,Y"
            return f"no instrument suited it in {_CREDIBLE_FRAMES} frames in a row"
        frame, x, y = self.target.point
        if x >= view.frame_width or y >= view.frame_height:
            return f"the frames have {view.frame_width}x{view.frame_height} pixels"
        if frame > last:
            return f"the last frame was {last}"
        return "no instrument was at that point from that frame on"

    def update(self, index: int, instances: Instances, found: Segmentation) -> Followed:
        """Return the state in frame `index`, whose segmentation is `found`. Frames come in order."""
        self._last, self._frames = (index, found.view), self._frames + 1
        if not self.id and self.target.point:
            self.id = self._at_point(index, instances, found.view)
        elif not self.id:
            self.id = self._by_words(instances, found.likeliest)
        if not self.id:
            return Followed(FollowState.WAITING, 0)
        return followed_in(instances, self.id)

    def _at_point(self, index: int, instances: Instances, view: Viewport) -> int:
        """Return the instrument nearest to the point, from the point's frame on; 0 if none is close to it."""
        assert self.target.point is not None
        frame, x, y = self.target.point
        if index < frame or not instances.items:
            return 0
        return instrument_at(instances, view, np.array([x + 0.5, y + 0.5]))

    def _by_words(self, instances: Instances, found: Segmentation) -> int:
        """Return the instrument that has suited the words for some frames; 0 if there is none."""
        suited = [item for item in instances.items if self._suits(instances.ids == item.id, found)]
        best = min(suited, key=lambda item: self._order(item, instances)).id if suited else 0
        self._credible = {best: self._credible.get(best, 0) + 1} if best else {}
        return best if self._credible.get(best, 0) >= _CREDIBLE_FRAMES else 0

    def _suits(self, cells: NDArray[np.bool_], found: Segmentation) -> bool:
        """Return whether the instrument of these cells is credible, and has a part of a class that was named."""
        classes = list(self.target.classes)
        named = not classes or float(np.isin(found.labels[cells], classes).mean()) >= _LEAST_PART
        return named and found.confidence_over(cells) >= _CREDIBLE

    def _order(self, item: Instance, instances: Instances) -> float:
        """Return how far on the wanted side an instrument lies, the least first; without a side, the largest first."""
        rows, columns = np.nonzero(instances.ids == item.id)
        x, y = self.target.sides
        return float(x * columns.mean() + y * rows.mean()) if x or y else -float(item.cells)


def followed_in(instances: Instances, number: int) -> Followed:
    """Return the state of the instrument `number` in a frame: lost if it is not among the frame's instances."""
    there = any(item.id == number for item in instances.items)
    return Followed(FollowState.FOLLOWING if there else FollowState.LOST, number)


def instrument_at(instances: Instances, view: Viewport, point: NDArray[np.float64]) -> int:
    """Return the id of the instrument nearest to a point (x, y) in pixels of the stored frame; 0 if none is close to it."""
    column, row = _on_grid(instances, view, point) - 0.5
    rows, columns = np.nonzero(instances.ids)
    distances = np.hypot(rows - row, columns - column)
    nearest = int(distances.argmin()) if distances.size else 0
    found = distances.size > 0 and distances[nearest] <= _REACH
    return int(instances.ids[rows[nearest], columns[nearest]]) if found else 0


def instrument_in(instances: Instances, view: Viewport, corners: NDArray[np.float64]) -> int:
    """Return the id of the instrument with the most cells in a box; 0 if there is none.

    corners: two opposite ones (2, 2) in pixels of the stored frame.
    """
    first, last = np.sort(_on_grid(instances, view, corners), axis=0)
    (left, top), (right, bottom) = np.maximum([np.floor(first), np.ceil(last)], 0).astype(int)
    counts = np.bincount(instances.ids[top:bottom, left:right].ravel(), minlength=1)
    counts[0] = 0
    return int(counts.argmax())


def _on_grid(instances: Instances, view: Viewport, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (column, row) of points (..., 2) of the stored frame on the grid, whose cell i reaches from i to i + 1."""
    rows, columns = instances.ids.shape
    at = map_points(frame_to_network(view), points)
    return np.asarray(at * (columns / view.network_width, rows / view.network_height), np.float64)


def followed_text(instances: Instances | None) -> str:
    """Return what a status line states about the instrument that is followed; empty if there is none."""
    followed = instances.followed if instances is not None else None
    return "" if followed is None else f"{followed.state}{f' #{followed.id}' if followed.id else ''}"
