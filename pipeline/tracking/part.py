"""A part of an instrument in one frame: where it enters, and which instrument in view it belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.tracking.contact import CellMaps, beside_line, half_width_of, long_axis
from cliprl.pipeline.tracking.memory import Embedding
from cliprl.pipeline.tracking.shafts import Mask, Shaft, contacts, find_shafts, middle_of, same_entry
from cliprl.pipeline.tracking.track import Track

# Cells between an instrument and a piece of it behind what hides the rest; share of the rest that a piece of an entry has.
_GAP, _OF_REST = 16, 0.25
# Share of its cells from which a part is a tip.
_TIP = 0.9
# Half widths beside the long axis of a cut-off part within which the piece of its shaft lies that enters.
_BESIDE = 2.0
# Cells between an instrument and what may be its end at most, and how far beside its line that may lie for each of them.
_AHEAD, _BENT = 32.0, 0.2
# Cells between the pieces of an instrument.
_NEAR = 12
# A part lies within another if this share of its cells is within this number of half widths beside the axis of that one; if it
# extends farther than another number in the mean, they need no look.
_INNER_SHARE, _INNER_WIDTH, _OUTER_WIDTH = 0.95, 1.2, 1.6
# A part is behind another if it has less than a share of the width that its track had alone, and both together at most a share of
# that of the other; how much less it may look like that one at most.
_NARROWER, _AS_WIDE, _UNLIKE = 0.7, 1.12, 0.1


@dataclass(eq=False)
class Part:
    """A part of an instrument: mask uint8 (h, w), 1 or 0, of `cells` cells. key: the track that it continues, 0 for none.

    maps: what is known of the cells of the frame. whole: it is a region by itself, not one of several in a
    region. host: the track that it belongs to if it does not enter through the edge and is no known instrument.
    rest_of: the track that has lost most of its cells in this frame, of which it is the rest unless it is the shaft of another.
    moments: those of its mask, if they were computed.
    """

    mask: Mask
    group: int
    key: int
    cells: int
    center: NDArray[np.float32]
    maps: CellMaps
    whole: bool = True
    host: int = 0
    rest_of: int = 0
    moments: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def runs(self) -> list[NDArray[np.intp]]:
        """Where it reaches the edge of the field of view, but for its tips."""
        return contacts(np.asarray(cv2.subtract(self.mask, self.maps.tips), np.uint8), self.maps.edge)

    @cached_property
    def axis(self) -> tuple[float, float, float]:
        """Its `long_axis`."""
        return long_axis(self.moments)

    def is_behind(self, other: Part, tracks: Mapping[int, Track]) -> bool:
        """Whether nothing is seen of its track here but cells of another part of its region, which hides it. Both have `moments`.

        It lies within that one, or it is narrower than its track was, and both together are no wider than the other track was.
        And it does not look clearly more like its own track.
        """
        own, host = tracks[self.key], tracks[other.key]
        if not self._is_within(other):
            if half_width_of(self.axis) > _NARROWER * own.half_width:
                return False
            both = np.asarray(cv2.bitwise_or(self.mask, other.mask), np.uint8)
            if half_width_of(long_axis(cv2.moments(both, binaryImage=True))) > _AS_WIDE * host.half_width:
                return False
        return self.look is None or host.likeness(self.look) >= own.likeness(self.look) - _UNLIKE

    def _is_within(self, other: Part) -> bool:
        """Whether nearly all of its cells lie on the long axis of another part, within the width of that one."""
        x, y, offset = other.axis
        column, row = self.center.tolist()
        spread = self.moments["mu20"] * x * x - 2 * self.moments["mu11"] * x * y + self.moments["mu02"] * y * y
        # Most parts need no look at their cells.
        if abs(column * x - row * y - offset) + math.sqrt(3 * max(spread, 0) / self.cells) > _OUTER_WIDTH:
            return False
        rows, columns = np.divmod(self.mask.ravel().nonzero()[0], self.mask.shape[1])
        return bool((np.abs(columns * x - rows * y - offset) <= _INNER_WIDTH).sum() >= _INNER_SHARE * self.cells)

    @cached_property
    def is_tip(self) -> bool:
        """Whether nearly all that is seen of it is the tip of an instrument."""
        return cv2.countNonZero(cv2.bitwise_and(self.mask, self.maps.tips)) >= _TIP * self.cells

    @cached_property
    def look(self) -> Embedding | None:
        """How it looks; None if the image is unknown."""
        return None if self.maps.looks is None else self.maps.looks.embed(self.mask)

    @cached_property
    def shafts(self) -> list[Shaft]:
        """The shafts by which it enters the field of view."""
        return find_shafts(self.mask, self.runs)

    @cached_property
    def entries(self) -> list[NDArray[np.float32]]:
        """The middle (x, y) of each of `runs`."""
        return [middle_of(run, self.mask.shape[1])[0] for run in self.runs]

    def continued(self, parts: list[Part], tracks: Mapping[int, Track], *, before_hidden: bool = False) -> int:
        """Return the track in view whose shaft this part is: it enters where that one does, which is cut off from there.

        It may also lie on the line of one that is cut off, whose axis counts if this part is too short for a shaft. Where it
        suits the shafts of several, the nearest counts, of hidden ones only without `before_hidden`.
        """
        if not self.runs:
            return 0
        shown: dict[int, list[Part]] = {}
        for part in parts:
            if part.key and part.group == self.group:
                shown.setdefault(part.key, []).append(part)
        away = (track for key, track in tracks.items() if key not in shown and track.id and track.group == self.group)
        hidden = [track.shaft for track in away if track.shaft is not None]
        for key, held in shown.items():
            known, cut_off = tracks[key].shaft, not any(part.runs for part in held)
            if known is None:
                found = cut_off and any(self._is_in_front_of(part) for part in held)
                found = found and not any(same_entry(shaft, other) for other in hidden for shaft in self.shafts)
            elif self._is_of(known):
                rest = sum(part.cells for part in held)
                found = self.cells <= _OF_REST * rest or not any(part._enters_at(known) for part in held)
                rivals = [tracks[key] for key in shown] if before_hidden else tracks.values()
                found = found and not self._is_nearer_to_another(known, rivals)
            else:
                found = cut_off and any(self._is_behind(part, known) for part in held)
                found = found and not any(self._is_of(other) for other in hidden)
            if found:
                return key
        return 0

    def entry_of(self, parts: list[Part]) -> int:
        """Return the track in view that is cut off from the edge and on whose long axis this part lies; 0 if there is none."""
        entered = {part.key for part in parts if part.runs}
        cut_off = [part for part in parts if part.key and part.key not in entered and part.group == self.group]
        return next((part.key for part in cut_off if self._is_on_axis(part)), 0)

    def _is_nearer_to_another(self, known: Shaft, tracks: Iterable[Track]) -> bool:
        """Whether the shaft of another instrument, which it may be of as well, lies nearer."""
        others = [
            track.shaft for track in tracks if track.id and track.group == self.group and track.shaft is not known
        ]
        nearer = known.distance(self.center)
        return any(other and other.distance(self.center) < nearer and self._is_of(other) for other in others)

    def _is_in_front_of(self, part: Part) -> bool:
        """Whether it enters with a shaft that leads to a part, or else with a short piece on the axis of a part near it."""
        if self.shafts:
            return any(self._reaches(shaft, part) for shaft in self.shafts)
        return bool(self.beside([part])) and self._is_on_axis(part)

    def _is_behind(self, part: Part, known: Shaft) -> bool:
        """Whether it lies on the long axis of a part whose shaft, as it was last seen, entered on this side."""
        return float((self.center - part.center) @ (known.start - part.center)) > 0 and self._is_on_axis(part)

    def _is_on_axis(self, part: Part) -> bool:
        """Whether it lies on the long axis of a part, but for its tips."""
        stem = np.asarray(cv2.subtract(part.mask, self.maps.tips), np.uint8)
        column, row = np.rint(self.center).astype(int).tolist()
        return cv2.countNonZero(stem) > 0 and float(beside_line(stem)[row, column]) <= _BESIDE

    def _is_of(self, known: Shaft) -> bool:
        """Whether it enters where a shaft does, and lies like it as far as can be seen."""
        alike = not self.shafts or any(same_entry(shaft, known) for shaft in self.shafts)
        return alike and self._enters_at(known)

    def _enters_at(self, shaft: Shaft) -> bool:
        """Whether it reaches the edge where a shaft enters."""
        slack = 3 * shaft.half_width + 3
        return any(math.hypot(*(entry - shaft.start).tolist()) <= slack for entry in self.entries)

    @staticmethod
    def _reaches(shaft: Shaft, part: Part) -> bool:
        return shaft.is_along(part.center, 1.5 * shaft.half_width + 2)

    def piece_of(self, parts: list[Part], tracks: Mapping[int, Track]) -> int:
        """Return the instrument on whose line this part lies without reaching the edge: what is between them is hidden."""
        if self.runs:
            return 0
        found: list[tuple[float, int]] = []
        for part in parts:
            if part.key and part.group == self.group:
                known = tracks[part.key].shaft
                shafts = part.shafts or ([] if known is None else [known])
                found += [(self._distance(shaft), part.key) for shaft in shafts if self._reaches(shaft, self)]
        distance, key = min(found, default=(math.inf, 0))
        return key if distance <= _GAP else 0

    def ahead_of(self, parts: list[Part], tracks: Mapping[int, Track]) -> int:
        """Return the instrument that enters and towards whose line this part lies, whatever hides it between; 0 if none does.

        The farther it is, the farther it may lie beside the line: wrists bend.
        """
        found: list[tuple[float, int]] = []
        for part in parts:
            if part.key and part.group == self.group and part.runs and tracks[part.key].id:
                known = tracks[part.key].shaft
                for shaft in part.shafts or ([] if known is None else [known]):
                    offset = self.center - shaft.start
                    along = float(offset @ shaft.direction)
                    gap = max(along - shaft.length, 0.0)
                    if (
                        along > 0
                        and gap < _AHEAD
                        and shaft.is_along(self.center, 1.5 * shaft.half_width + 2 + _BENT * gap)
                    ):
                        across = math.hypot(*(offset - along * shaft.direction).tolist())
                        found.append((across / shaft.half_width, part.key))
        return min(found, default=(0.0, 0))[1]

    def _distance(self, shaft: Shaft) -> float:
        """Return how many cells lie between its nearest cell and the end of a shaft, 0 beside it."""
        rows, columns = self.mask.view(np.bool_).nonzero()
        points = np.stack([columns, rows], axis=1) - shaft.start
        along = np.clip(points @ shaft.direction, 0, shaft.length)
        return float(np.hypot(*(points - along[:, None] * shaft.direction).T).min())

    def beside(self, parts: list[Part]) -> list[int]:
        """Return the tracks in view that lie within `_NEAR` cells."""
        reach = np.ones((2 * _NEAR + 1, 2 * _NEAR + 1), np.uint8)
        around = np.asarray(cv2.dilate(self.mask, reach), np.uint8)
        near = [part for part in parts if part.key and part.group == self.group and (around & part.mask).any()]
        return list(dict.fromkeys(part.key for part in near))


def make_part(mask: Mask, group: int, key: int, maps: CellMaps) -> Part:
    """Make the part of a region from its mask, which has cells or none."""
    moments = cv2.moments(mask, binaryImage=True)
    cells = int(moments["m00"])
    center = np.array([moments["m10"], moments["m01"]], np.float32) / np.float32(max(cells, 1))
    return Part(mask, group, key, cells, center, maps, False, moments=moments)


def joint_center(parts: list[Part]) -> NDArray[np.float32]:
    """Return the center (x, y) of parts together."""
    if len(parts) == 1:
        return parts[0].center
    total = sum(part.cells for part in parts)
    return np.asarray(sum(part.center * np.float32(part.cells / total) for part in parts), np.float32)
