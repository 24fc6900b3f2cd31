"""One tracked instrument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.segmentation import Instance, Instances, Segmentation
from cliprl.pipeline.segment.motion import Flow, sampled
from cliprl.pipeline.tracking.memory import Embedding, EmbeddingMemory
from cliprl.pipeline.tracking.shafts import Shaft

# Frames in which a new region must be seen until it gets an id, fewer would number specks; and those of a region that does not
# reach the edge of the field of view, which may be a piece.
CONFIRMED, CONFIRMED_INSIDE = 3, 10
# Cells of the smallest region that gets an id: smaller ones are rather false alarms of the network.
ID_CELLS = 24
# The most frames in a row that are divided as the one before if they are much like it.
HELD_FRAMES = 2
# Frames between two looks at the appearance of an instrument in view.
_LOOK = 8
# Cells around the place of a hidden instrument in which it is expected, and the frames of hiding that add one more. Like _UNSURE
# of the regions and _SAME_ENTRY of the tracker, chosen on clips for choosing: the scores are those of other seeds (README.md).
_AROUND, _PER_CELL = 3, 6
# Share of its cells below which an instrument that loses them at once has but a rest in view, and the frames for which that rest
# may linger until it is hidden: then it is expected where it was before.
_REST, _LINGER = 0.4, 12
# Share of a region that must lie there, so that it may be a piece of the instrument.
_WITHIN = 0.9
# Share of the newest frame in the color histogram, and the least frequency of a color.
_NEWEST, _RARE = 0.2, 0.01


@dataclass(slots=True, eq=False)
class Track:
    """key: its value in the tracker's maps. id: 0 until it is confirmed. group: its class group, from 1. phase:
    shifts the frames in which it is looked at, so that those of several tracks differ.

    center: float (x, y) in grid cells, where it is or was last seen. cells: how many it has there. age: frames since it was
    first seen. hits: frames in which it was seen. looked: those at its last look. missing: frames since it was seen.
    has_entered: whether it was ever seen to reach the edge of the field of view. shaft: the last one that was seen alone.
    doubled: successive looks in which it seems to be two instruments. half_width: that of its long axis when it was last looked
    at alone. colors: how often its cells have each color code. color_costs: how unlike its colors each code is, (256,): minus the
    logarithm of its frequency. Both None if they are unknown.
    place: its last cells, uint8 (h, w), while it has been hidden for a short time. around: `around_place` with the place and the
    side that it is of. before: its cells (h, w) before it lost most of them at once, with their number and its age then, while a
    rest of it is in view.
    """

    key: int
    group: int
    center: NDArray[np.float32]
    id: int = 0
    phase: int = 0
    cells: int = 0
    age: int = 0
    hits: int = 0
    looked: int = 0
    missing: int = 0
    has_entered: bool = False
    shaft: Shaft | None = None
    doubled: int = 0
    half_width: float = 0.0
    colors: NDArray[np.float32] | None = None
    color_costs: NDArray[np.float32] | None = None
    place: NDArray[np.uint8] | None = None
    around: tuple[NDArray[np.uint8], int, NDArray[np.uint8]] | None = None
    before: tuple[NDArray[np.uint8], int, int] | None = None
    memory: EmbeddingMemory = field(default_factory=EmbeddingMemory)

    @property
    def due(self) -> bool:
        """Whether its appearance should be looked at in this frame."""
        return self.hits < CONFIRMED or (self.hits + self.phase) // _LOOK > (self.looked + self.phase) // _LOOK

    def wait(self) -> None:
        """Let a frame pass that is much like the last one."""
        self.age += 1
        if self.missing:
            self.missing += 1
        else:
            self.hits += 1

    def carry(self, offsets: Flow) -> None:
        """Move the place where it is hidden along with the image."""
        x, y = (round(v) for v in self.center.tolist())
        rows, columns = offsets.shape[:2]
        self.center = self.center - offsets[min(max(y, 0), rows - 1), min(max(x, 0), columns - 1)]
        if self.place is not None:
            self.place = np.asarray(sampled(self.place, offsets, cv2.INTER_NEAREST), np.uint8)

    @property
    def is_confirmed(self) -> bool:
        """Whether it was seen often enough for an id."""
        return self.cells >= ID_CELLS and self.hits >= (CONFIRMED if self.has_entered else CONFIRMED_INSIDE)

    def is_due_for_id(self, cells: int) -> bool:
        """Whether it may get an id in this frame, in which it has `cells` cells."""
        return (
            not self.id and cells >= ID_CELLS and self.hits + 1 >= (CONFIRMED if self.has_entered else CONFIRMED_INSIDE)
        )

    @property
    def is_due_for_id_inside(self) -> bool:
        """Whether it may get an id in this frame although it never reached the edge."""
        return not self.id and not self.has_entered and self.hits + 1 >= CONFIRMED_INSIDE

    def resize(self, cells: int, last: NDArray[np.uint16] | None) -> None:
        """Take how many cells it has in a frame. last: the map of keys of the frame before."""
        if self.before is not None and (cells >= _REST * self.before[1] or self.age - self.before[2] > _LINGER):
            self.before = None
        if self.before is None and cells < _REST * self.cells and last is not None:
            place = (last == self.key).view(np.uint8) if self.place is None else self.place
            self.before = place, self.cells, self.age
        self.cells = cells

    def hide(self, last: NDArray[np.uint16]) -> None:
        """Remember where it was: in the map of keys of the last frame, or of the one before it lost most of its cells."""
        if self.before is None:
            self.place = (last == self.key).view(np.uint8)
        else:
            (self.place, self.cells, _), self.before = self.before, None

    def around_place(self) -> NDArray[np.uint8]:
        """Return where it is expected while it is hidden for a short time: uint8 (h, w), 1 around its last cells."""
        assert self.place is not None
        side = 2 * (_AROUND + self.missing // _PER_CELL) + 1
        if self.around is None or self.around[0] is not self.place or self.around[1] != side:
            self.around = (
                self.place,
                side,
                np.asarray(cv2.dilate(self.place, np.ones((side, side), np.uint8)), np.uint8),
            )
        return self.around[2]

    def is_expected_at(self, mask: NDArray[np.uint8], cells: int) -> bool:
        """Whether nearly all of a region of `cells` cells lies where it is expected while it is hidden."""
        return self.place is not None and cv2.countNonZero(mask & self.around_place()) >= _WITHIN * cells

    def likeness(self, embedding: Embedding) -> float:
        """Return the similarity of an embedding to what it has looked like, 0..1."""
        return self.memory.similarity(embedding)

    def add_colors(self, codes: NDArray[np.uint8]) -> None:
        """Take the color codes of its cells (n,) into its histogram."""
        found = np.bincount(codes, minlength=256).astype(np.float32) / np.float32(max(len(codes), 1))
        self.colors = found if self.colors is None else self.colors + np.float32(_NEWEST) * (found - self.colors)
        self.color_costs = -np.log(self.colors + np.float32(_RARE))


def find_instances(
    cells: NDArray[np.intp],
    keys: NDArray[np.uint16],
    tracks: Mapping[int, Track],
    names: Sequence[str],
    segmentation: Segmentation,
) -> Instances:
    """Return the instruments of a frame by the keys of `cells` (flat indices); no others have one. names: those of the groups."""
    ids, classes = np.zeros(max(tracks, default=0) + 1, np.uint16), len(segmentation.probabilities)
    pairs = keys * np.intp(classes) + segmentation.labels.ravel().take(cells)
    counts = np.bincount(pairs, minlength=classes * len(ids)).reshape(-1, classes).tolist()
    items = []
    for track in sorted((t for t in tracks.values() if t.id and not t.missing), key=attrgetter("id")):
        ids[track.key] = track.id
        own = counts[track.key]
        if found := sum(own):
            items.append(Instance(track.id, names[track.group - 1], own.index(max(own)), found))
    numbers = np.zeros(segmentation.labels.shape, np.uint16)
    numbers.ravel()[cells] = ids.take(keys)
    return Instances(numbers, tuple(items))
