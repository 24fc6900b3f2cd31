"""Gives every instrument an id that lasts: regions are followed along the motion, divided at crossings, and recognized."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import count
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.segmentation import Instances, Segmentation
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.segment.motion import Flow, sampled
from cliprl.pipeline.tracking.appearance import Appearance
from cliprl.pipeline.tracking.assignment import assign
from cliprl.pipeline.tracking.contact import CellMaps, Divided, NearestKeys, field_edge, half_width_of, long_axis
from cliprl.pipeline.tracking.groups import ClassGroups
from cliprl.pipeline.tracking.optical_flow import DelayedFlow
from cliprl.pipeline.tracking.part import Part, joint_center
from cliprl.pipeline.tracking.regions import FrameRegions, find_parts, find_regions, settle, without_doubles
from cliprl.pipeline.tracking.shafts import is_cut_off, same_entry
from cliprl.pipeline.tracking.track import CONFIRMED_INSIDE, HELD_FRAMES, ID_CELLS, Track, find_instances
from cliprl.pipeline.view.grid_warp import grid_map

# Frames for which a hidden instrument is expected where it was.
_EXPECTED = 50
# Instruments that are remembered after they have left.
_REMEMBERED = 32
# Ids of a map of 16 bits.
_IDS = 65_535
# Mean probability of its classes from which a new region gets an id.
_PRESENT = 0.6
# Likeness from which a region is taken for a hidden instrument, and the part that its place has in the decision.
_LIKE, _PLACE_WEIGHT = 0.62, 0.35
# What it costs that a part does not reach the edge of the field of view, though the instrument did, that it is a fragment near
# one in view then, and that it is smaller than a share of it; not where it was hidden, because smoke may hide the rest of one
# that returns, but for crumbs of that share.
_INSIDE, _BESIDE, _SMALL, _PIECE, _CRUMB = 0.4, 0.4, 0.3, 0.25, 0.04
# What is taken off that cost if a part enters where the instrument did; likeness from which a new region near one is its piece.
_SAME_ENTRY, _SIMILAR = 0.8, 0.75


@dataclass(frozen=True, slots=True, eq=False)
class TrackerInput:
    """What the tracker sees of a frame.

    image: the network input, uint8 (H, W, 3) RGB, None if it is not in host memory: then motion and colors are unknown.
    features: the encoder's, float32 (D, h, w), None if unknown. is_cut: a new shot starts here.
    """

    segmentation: Segmentation
    image: NDArray[np.uint8] | None = None
    features: NDArray[Any] | None = None
    is_cut: bool = False


class InstrumentTracker:
    """Tracks the instruments of one stream. `update` takes the frames in order.

    A region of the label map that overlaps an instrument of the frame before, moved along the optical flow, continues it. A
    region that several instruments reach is divided among them. One that none reaches is a part of an instrument that is cut
    in two, or an instrument that was hidden or has returned (by place and appearance), or else a new one.
    """

    def __init__(self, groups: ClassGroups) -> None:
        self.groups = groups
        self._motion = DelayedFlow(_EXPECTED)
        self._tracks: dict[int, Track] = {}
        self._map: NDArray[np.uint16] | None = None  # keys of the last frame
        self._view: Viewport | None = None
        self._started = self._last_id = 0
        self._fresh, self._held = True, 0
        self._nearest: NearestKeys | None = None

    def update(self, seen: TrackerInput) -> Instances:
        """Find the instruments of a frame."""
        segmentation = seen.segmentation
        shape, likeliest = segmentation.labels.shape, segmentation.likeliest
        groups = self.groups.most_probable(likeliest.labels, likeliest.probabilities)
        if (alike := self._continued(groups, seen)) is not None:
            return find_instances(*alike, self._tracks, self.groups.names, segmentation)
        looks = None if seen.image is None else Appearance(seen.image, seen.features, shape)
        kinds = np.asarray(cv2.LUT(likeliest.labels, self.groups.kinds), np.uint8)
        maps = CellMaps(groups, kinds, field_edge(segmentation.view, *shape), looks)
        regions = find_regions(maps)
        parts = self._parts(regions, maps, seen)
        self._recognize(parts)
        current = self._follow(parts, maps, segmentation)
        self._map, self._view, self._fresh, self._nearest, self._held = current, segmentation.view, False, None, 0
        self._forget()
        keys = current.ravel().take(regions.cells)
        return find_instances(regions.cells, keys, self._tracks, self.groups.names, segmentation)

    def _continued(self, groups: NDArray[np.uint8], seen: TrackerInput) -> Divided | None:
        """Return the cells of instruments and their keys in a frame that is much like the last divided one, or None."""
        last, view = self._map, seen.segmentation.view
        if last is None or last.shape != groups.shape or seen.is_cut or view != self._view or self._held >= HELD_FRAMES:
            return None
        young = (track for track in self._tracks.values() if not track.id and not track.missing and track.has_entered)
        if any(track.cells >= ID_CELLS for track in young):
            return None
        self._nearest = self._nearest or NearestKeys(last, self._tracks)
        if (divided := self._nearest.divide(groups)) is not None:
            self._held += 1
            for track in self._tracks.values():
                track.wait()
        return divided

    def _parts(self, regions: FrameRegions, maps: CellMaps, seen: TrackerInput) -> list[Part]:
        """Return the parts of the instruments. Motion is measured only where the last frame's map does not settle them."""
        hides = any(0 < track.missing <= _EXPECTED for track in self._tracks.values())
        last, old, view = self._map, self._view, seen.segmentation.view
        if last is None or old is None or last.shape != maps.groups.shape or seen.is_cut:
            self._fresh, last = True, np.zeros(maps.groups.shape, np.uint16)
        is_moved = old is not None and (old.crop, old.placed) != (view.crop, view.placed)
        is_settled = not self._fresh and not is_moved and settle(regions, last, maps, self._tracks)
        if maps.looks is None or not (hides or regions.wholes):
            self._motion.clear()
        else:
            self._motion.add(maps.looks.gray(colors_follow=not is_settled))
        if is_settled:
            return without_doubles(regions.wholes, last, self._tracks)
        last = self._expected(last, view if is_moved else None, every=hides)
        return without_doubles(find_parts(regions, last, maps, self._tracks), last, self._tracks)

    def _expected(self, last: NDArray[np.uint16], view: Viewport | None, *, every: bool) -> NDArray[np.uint16]:
        """Return the last frame's map of keys, moved to where its instruments should be now.

        view: the new one, if it has changed. every: all motion since the last call moves the places of hidden instruments.
        """
        steps = self._motion.steps(newest=not every)
        for step in steps[:-1]:
            self._carry(step)
        if self._fresh:
            return last
        if view is not None and self._view is not None:
            scale, shift = grid_map(self._view, view, last.shape)
            matrix = np.column_stack([np.diag(scale), shift])
            return np.asarray(cv2.warpAffine(last, matrix, last.shape[::-1], flags=cv2.INTER_NEAREST), np.uint16)
        if not steps or steps[-1] is None:
            return last
        self._carry(steps[-1])
        return np.asarray(sampled(last, steps[-1], cv2.INTER_NEAREST), np.uint16)

    def _carry(self, offsets: Flow | None) -> None:
        """Move the places of hidden instruments along with the image."""
        if offsets is None:
            return
        for track in self._tracks.values():
            if track.missing:
                track.carry(offsets)

    def _recognize(self, parts: list[Part]) -> None:
        """Give parts that continue no instrument the key of a hidden one, of the one they are a piece of, or a new key.

        Before one gets an id it is compared once more with hidden ones, and inside the field of view with those near it.
        """
        for part in parts:
            # It was smaller when it was first compared.
            if part.key and self._tracks[part.key].is_due_for_id(part.cells):
                part.key = self._hidden_like(part, parts) or part.key
            if part.key and self._tracks[part.key].is_due_for_id_inside:
                others = [other for other in parts if other.key != part.key]
                part.key = self._similar(part, others) or part.ahead_of(others, self._tracks) or part.key
        if all(part.key for part in parts):
            return
        for part in parts:
            part.key = part.key or part.continued(parts, self._tracks)
            part.key = part.key or (part.rest_of and (part.entry_of(parts) or part.rest_of))
        taken, new = {part.key for part in parts}, [part for part in parts if not part.key]
        hidden = [track for track in self._tracks.values() if track.key not in taken and track.id]
        costs = np.array([[self._cost(part, track, parts) for track in hidden] for part in new], np.float64)
        if hidden and new:
            for part, chosen in zip(new, assign(costs, 1.0), strict=True):
                part.key = hidden[chosen].key if chosen >= 0 else 0
        for part in new:
            part.key = part.key or self._rest_of_returned(part, parts)
        for part in sorted(new, key=lambda part: (not part.shafts, -part.cells)):
            host = part.host if not part.runs else 0
            part.key = part.key or part.continued(parts, self._tracks, before_hidden=True) or host
            part.key = part.key or part.piece_of(parts, self._tracks) or self._similar(part, parts)
            part.key = part.key or self._start(part)

    def _rest_of_returned(self, part: Part, parts: list[Part]) -> int:
        """Return the instrument that has returned in this frame and was hidden where this part lies; 0 if there is none."""
        back = [self._tracks[key] for key in {other.key for other in parts if other.group == part.group} if key]
        back = [track for track in back if track.missing and track.is_expected_at(part.mask, part.cells)]
        return self._most_like(part, [track.key for track in back], _LIKE)

    def _hidden_like(self, part: Part, parts: list[Part]) -> int:
        """Return the hidden instrument that a part is taken for; 0 if there is none."""
        taken = {other.key for other in parts}
        hidden = [track for track in self._tracks.values() if track.id and track.key not in taken]
        cost, key = min(((self._cost(part, track, parts), track.key) for track in hidden), default=(9.0, 0))
        return key if cost <= 1 else 0

    def _similar(self, part: Part, parts: list[Part]) -> int:
        """Return the instrument in view, near a part, that looks like it; 0 if there is none."""
        others = [other for other in parts if part.is_tip and other.is_tip] if self._fresh else parts
        return self._most_like(part, part.beside(others), _SIMILAR)

    def _most_like(self, part: Part, keys: list[int], least: float) -> int:
        """Return the track that a part looks most like, from `least` on; 0 if there is none."""
        if not keys or part.look is None:
            return 0
        likeness, key = max((self._tracks[key].likeness(part.look), key) for key in keys)
        return key if likeness >= least else 0

    def _cost(self, part: Part, track: Track, parts: list[Part]) -> float:
        """Return the cost of taking a part for a hidden instrument: above 1 it is another."""
        if part.group != track.group:
            return 9.0
        rows, columns = part.mask.shape
        far = float(np.linalg.norm(part.center - track.center)) / float(np.hypot(rows, columns))
        expected = max(1 - track.missing / _EXPECTED, 0.0)
        if not len(track.memory) or part.look is None:
            return 0.5 + 4 * far if expected else 9.0
        unlike = (1 - track.likeness(part.look)) / (1 - _LIKE)
        if part.cells < _CRUMB * track.cells or not track.is_expected_at(part.mask, part.cells):
            unlike += _SMALL * (part.cells < _PIECE * track.cells)
            if track.has_entered and not part.runs:
                is_fragment = part.cells < ID_CELLS and part.beside([other for other in parts if other is not part])
                unlike += _INSIDE + _BESIDE * bool(is_fragment)
        if track.shaft is not None and any(same_entry(shaft, track.shaft) for shaft in part.shafts):
            unlike -= _SAME_ENTRY
        return unlike + _PLACE_WEIGHT * expected * 4 * far

    def _start(self, part: Part) -> int:
        """Start a track under the lowest free key: keys are as few as tracks, however long the stream is."""
        key = next(key for key in count(1) if key not in self._tracks)
        self._started += 1
        self._tracks[key] = Track(key, part.group, part.center, phase=self._started)
        if self._fresh:
            self._tracks[key].hits = CONFIRMED_INSIDE - 1
        if part.look is not None:
            self._tracks[key].memory.add(part.look)
        return key

    def _next_id(self) -> int:
        """Return an id that no track has; after the last of 16 bits, the first ones are used again."""
        used = {track.id for track in self._tracks.values()}
        self._last_id = next(number for i in count(self._last_id) if (number := i % _IDS + 1) not in used)
        return self._last_id

    def _follow(self, parts: Iterable[Part], maps: CellMaps, segmentation: Segmentation) -> NDArray[np.uint16]:
        """Update the tracks with their parts; return the map of keys."""
        current = np.zeros(segmentation.labels.shape, np.uint16)
        held: dict[int, list[Part]] = {}
        for part in parts:
            current[part.mask.view(np.bool_)] = part.key
            held.setdefault(part.key, []).append(part)
        for key, track in self._tracks.items():
            track.age += 1
            if key not in held:
                if not track.missing and track.id and self._map is not None:
                    track.hide(self._map)
                track.missing += 1
                track.place = None if track.missing > _EXPECTED else track.place
                continue
            is_due, track.hits, track.missing = track.due, track.hits + 1, 0
            track.center = joint_center(held[key])
            track.resize(sum(part.cells for part in held[key]), self._map)
            track.place = None
            track.has_entered = track.has_entered or any(part.runs for part in held[key])
            if is_due:
                self._look(track, held[key], maps)
            if not track.id and track.is_confirmed and self._presence(segmentation, track, current == key) >= _PRESENT:
                track.id = self._next_id()
        return current

    @staticmethod
    def _look(track: Track, held: list[Part], maps: CellMaps) -> None:
        """Take up how an instrument looks and where it enters."""
        track.looked = track.hits
        shafts = [shaft for part in held for shaft in part.shafts]
        if len(shafts) == 1 and not (track.shaft and is_cut_off(shafts[0], track.shaft)):
            track.shaft = shafts[0]
        if maps.looks is not None and (all(part.whole for part in held) or track.colors is None):
            mask = reduce(np.bitwise_or, (part.mask for part in held))
            alone = held[0].look if len(held) == 1 else None
            track.half_width = half_width_of(long_axis(cv2.moments(mask, binaryImage=True)))
            track.memory.add(maps.looks.embed(mask) if alone is None else alone)
            if maps.codes is not None:
                track.add_colors(maps.codes[mask.view(np.bool_)])

    def _presence(self, segmentation: Segmentation, track: Track, cells: NDArray[np.bool_]) -> float:
        """Return the mean probability of the classes of a track's group over its cells."""
        members = np.flatnonzero(self.groups.table[: len(segmentation.probabilities)] == track.group)
        return float(segmentation.probabilities[members][:, cells].sum(axis=0).mean())

    def _forget(self) -> None:
        gone = [key for key, track in self._tracks.items() if track.missing and not track.id]
        away = sorted((t for t in self._tracks.values() if t.id and t.missing), key=lambda t: t.missing)
        for key in [*gone, *(track.key for track in away[_REMEMBERED:])]:
            del self._tracks[key]
