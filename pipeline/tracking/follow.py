"""Follows one instrument, which a point or a few words choose; it is lost rather than mistaken for another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from cliprl.engines import ClassSpec, UsageError
from cliprl.pipeline.core.segmentation import Followed, FollowState, Instance, Instances
from cliprl.pipeline.core.viewport import Viewport, frame_to_network, map_points

# Frames in which the same instrument must suit the words, and its least confidence, until it is followed.
_CREDIBLE_FRAMES, _CREDIBLE = 5, 0.4
# Cells around a point in which an instrument is looked for.
_REACH = 2
_POINT = re.compile(r"(\d+)#(\d+),(\d+)")
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
        words = text.casefold().replace("-", " ").split()
        sides = [_SIDES[word] for word in words if word in _SIDES]
        named = [word for word in words if word not in _SIDES and word not in ("instrument", "the", "tool")]
        names = {i: spec.name for i, spec in enumerate(classes) if spec.kind == "instrument"}
        chosen = {i for i, name in names.items() if named and set(named) <= set(re.split(r"[-_ ]", name.casefold()))}
        if not words or (named and not chosen):
            raise UsageError(
                f"can't follow '{text}': give FRAME#X,Y, or left, right, upper or lower with instrument or one of "
                f"{', '.join(names.values())}; --prompt adds a class"
            )
        x, y = (sum(side[axis] for side in sides) for axis in (0, 1))
        return cls(text, None, (x, y), frozenset(chosen))


@dataclass(slots=True)
class Follower:
    """Chooses the instrument of a target, and tells in every frame whether it is in view."""

    target: FollowTarget
    id: int = 0
    _credible: dict[int, int] = field(default_factory=dict)

    def update(self, index: int, instances: Instances, view: Viewport) -> Followed:
        """Return the state in frame `index`. Frames come in order."""
        if not self.id:
            self.id = self._at_point(index, instances, view) if self.target.point else self._by_words(instances)
        if not self.id:
            return Followed(FollowState.WAITING, 0)
        there = any(item.id == self.id for item in instances.items)
        return Followed(FollowState.FOLLOWING if there else FollowState.LOST, self.id)

    def _at_point(self, index: int, instances: Instances, view: Viewport) -> int:
        """Return the instrument nearest to the point, from the point's frame on; 0 if none is close to it."""
        assert self.target.point is not None
        frame, x, y = self.target.point
        if index < frame or not instances.items:
            return 0
        rows, columns = instances.ids.shape
        at = map_points(frame_to_network(view), np.array([x + 0.5, y + 0.5]))
        column, row = at * (columns / view.network_width, rows / view.network_height) - 0.5
        found_rows, found_columns = np.nonzero(instances.ids)
        distances = np.hypot(found_rows - row, found_columns - column)
        nearest = int(distances.argmin())
        return int(instances.ids[found_rows[nearest], found_columns[nearest]]) if distances[nearest] <= _REACH else 0

    def _by_words(self, instances: Instances) -> int:
        """Return the instrument that has suited the words for some frames; 0 if there is none."""
        suited = [item for item in instances.items if self._suits(item)]
        best = min(suited, key=lambda item: self._order(item, instances)).id if suited else 0
        self._credible = {best: self._credible.get(best, 0) + 1} if best else {}
        return best if self._credible.get(best, 0) >= _CREDIBLE_FRAMES else 0

    def _suits(self, item: Instance) -> bool:
        return item.confidence >= _CREDIBLE and (not self.target.classes or item.class_id in self.target.classes)

    def _order(self, item: Instance, instances: Instances) -> float:
        """Return how far on the wanted side an instrument lies, the least first; without a side, the largest first."""
        rows, columns = np.nonzero(instances.ids == item.id)
        x, y = self.target.sides
        return float(x * columns.mean() + y * rows.mean()) if x or y else -float(item.cells)
