"""Gives every instrument an id that lasts: regions are followed along the motion, divided at crossings, and recognized."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.segmentation import Instance, Instances, Segmentation
from cliprl.pipeline.core.viewport import Viewport, grid_map, inside_cells
from cliprl.pipeline.tracking.appearance import Appearance
from cliprl.pipeline.tracking.assignment import assign
from cliprl.pipeline.tracking.groups import ClassGroups
from cliprl.pipeline.tracking.optical_flow import Flow, FlowEstimator, sampled
from cliprl.pipeline.tracking.regions import Part, find_parts
from cliprl.pipeline.tracking.shafts import Mask, border
from cliprl.pipeline.tracking.track import CONFIRMED, Track

# Longer side of the images that the motion is measured on.
_FLOW_SIZE = 160
# Frames for which a hidden instrument is expected where it was.
_EXPECTED = 50
# Instruments that are remembered after they have left.
_REMEMBERED = 32
# Mean probability of its classes from which a new region gets an id.
_PRESENT = 0.6
# Likeness from which a region is taken for a hidden instrument, and the part that its place has in the decision.
_LIKE, _PLACE_WEIGHT = 0.62, 0.35


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
        self._flow = FlowEstimator()
        self._tracks: dict[int, Track] = {}
        self._map: NDArray[np.uint16] | None = None  # keys of the last frame
        self._view: Viewport | None = None
        self._keys = self._ids = 0
        self._fresh = True

    def update(self, seen: TrackerInput) -> Instances:
        """Find the instruments of a frame."""
        segmentation = seen.segmentation
        expected = self._expected(seen)
        classes = np.asarray(cv2.LUT(segmentation.labels, self.groups.table), np.uint8)
        edge = _edge(segmentation.view, *classes.shape)
        parts = find_parts(classes, expected, self._tracks, edge)
        looks = None if seen.image is None else Appearance(seen.image, seen.features, classes.shape)
        self._recognize([part for part in parts if part.key == 0], parts, looks)
        current = self._follow(parts, looks, segmentation)
        self._map, self._view, self._fresh = current, segmentation.view, False
        self._forget()
        return self._instances(current, segmentation)

    def _expected(self, seen: TrackerInput) -> NDArray[np.uint16]:
        """Return the last frame's map of keys, moved to where its instruments should be now."""
        labels, view = seen.segmentation.labels, seen.segmentation.view
        flow = None if seen.image is None else self._flow(_small(seen.image))
        last, old = self._map, self._view
        if last is None or old is None or last.shape != labels.shape or seen.is_cut:
            self._fresh = True
            return np.zeros(labels.shape, np.uint16)
        if (old.crop, old.placed) != (view.crop, view.placed):
            scale, shift = grid_map(old, view, labels.shape)
            matrix = np.column_stack([np.diag(scale), shift])
            return np.asarray(cv2.warpAffine(last, matrix, labels.shape[::-1], flags=cv2.INTER_NEAREST), np.uint16)
        if flow is None:
            return last
        offsets = _on_grid(flow, labels.shape)
        self._carry(offsets)
        return np.asarray(sampled(last, offsets, cv2.INTER_NEAREST), np.uint16)

    def _carry(self, offsets: Flow) -> None:
        """Move the places of hidden instruments along with the image."""
        rows, columns = offsets.shape[:2]
        for track in self._tracks.values():
            if track.missing:
                x, y = np.clip(np.rint(track.center), 0, (columns - 1, rows - 1)).astype(int)
                track.center = track.center - offsets[y, x]

    def _recognize(self, new: list[Part], parts: list[Part], looks: Appearance | None) -> None:
        """Give parts that continue no instrument the key of a hidden one, of the one they are a piece of, or a new key."""
        taken = {part.key for part in parts}
        hidden = [track for track in self._tracks.values() if track.key not in taken and track.id]
        costs = np.array([[self._cost(part, track, looks) for track in hidden] for part in new], np.float64)
        for index, chosen in enumerate(assign(costs, 1.0) if hidden and new else [-1] * len(new)):
            part = new[index]
            if chosen >= 0:
                part.key = hidden[chosen].key
            elif part.host and not part.has_shaft:
                part.key = part.host
            elif (whole := part.piece_of(parts)) is not None:
                part.key = whole.key
            else:
                part.key = self._start(part)

    def _cost(self, part: Part, track: Track, looks: Appearance | None) -> float:
        """Return the cost of taking a part for a hidden instrument: above 1 it is another."""
        if part.group != track.group:
            return 9.0
        rows, columns = part.mask.shape
        far = float(np.linalg.norm(part.center - track.center)) / float(np.hypot(rows, columns))
        expected = max(1 - track.missing / _EXPECTED, 0.0)
        if looks is None or not len(track.memory):
            return 0.5 + 4 * far if expected else 9.0
        unlike = (1 - track.likeness(looks.embed(part.mask))) / (1 - _LIKE)
        return unlike + _PLACE_WEIGHT * expected * 4 * far

    def _start(self, part: Part) -> int:
        self._keys += 1
        self._tracks[self._keys] = Track(self._keys, part.group, part.center)
        if self._fresh:
            self._tracks[self._keys].hits = CONFIRMED - 1
        return self._keys

    def _follow(
        self, parts: Iterable[Part], looks: Appearance | None, segmentation: Segmentation
    ) -> NDArray[np.uint16]:
        """Update the tracks with their parts; return the map of keys."""
        current = np.zeros(segmentation.labels.shape, np.uint16)
        clean: dict[int, bool] = {}
        for part in parts:
            np.copyto(current, np.uint16(part.key), where=part.mask > 0)
            clean[part.key] = clean.get(part.key, True) and part.whole
            track = self._tracks[part.key]
            track.has_shaft = track.has_shaft or part.has_shaft
        for key, track in self._tracks.items():
            if key not in clean:
                track.missing += 1
                continue
            mask = (current == key).view(np.uint8)
            track.hits, track.missing, track.center = track.hits + 1, 0, _center(mask)
            if looks is not None and track.due and (clean[key] or not len(track.memory)):
                track.memory.add(looks.embed(mask))
            if not track.id and track.hits >= CONFIRMED and self._presence(segmentation, track, mask) >= _PRESENT:
                self._ids += 1
                track.id = self._ids
        return current

    def _presence(self, segmentation: Segmentation, track: Track, mask: Mask) -> float:
        """Return the mean probability of the classes of a track's group over its cells."""
        members = np.flatnonzero(self.groups.table[: len(segmentation.probabilities)] == track.group)
        return float(segmentation.probabilities[members][:, mask > 0].sum(axis=0).mean())

    def _forget(self) -> None:
        gone = [key for key, track in self._tracks.items() if track.missing and not track.id]
        away = sorted((t for t in self._tracks.values() if t.id and t.missing), key=lambda t: t.missing)
        for key in [*gone, *(track.key for track in away[_REMEMBERED:])]:
            del self._tracks[key]

    def _instances(self, current: NDArray[np.uint16], segmentation: Segmentation) -> Instances:
        ids, items, calibrated = np.zeros_like(current), [], segmentation.calibrated()
        for key, track in self._tracks.items():
            if track.missing or not track.id:
                continue
            cells = np.flatnonzero(current == key)
            ids.ravel()[cells] = track.id
            labels = segmentation.labels.ravel()[cells]
            sure = calibrated.reshape(len(calibrated), -1)[labels, cells]
            most = int(np.bincount(labels).argmax())
            items.append(Instance(track.id, self.groups.names[track.group - 1], most, len(cells), float(sure.mean())))
        return Instances(ids, tuple(sorted(items, key=lambda item: item.id)))


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    scale = min(_FLOW_SIZE / max(height, width), 1.0)
    green = cv2.extractChannel(image, 1)
    size = (round(width * scale), round(height * scale))
    return np.asarray(cv2.resize(green, size, interpolation=cv2.INTER_AREA), np.uint8)


def _on_grid(flow: Flow, grid: tuple[int, ...]) -> Flow:
    """Scale flow to the grid (rows, columns): offsets in cells."""
    scale = np.array([grid[1] / flow.shape[1], grid[0] / flow.shape[0]], np.float32)
    return np.asarray(cv2.resize(flow, (grid[1], grid[0]), interpolation=cv2.INTER_AREA) * scale, np.float32)


def _center(mask: Mask) -> NDArray[np.float32]:
    moments = cv2.moments(mask, binaryImage=True)
    return np.array([moments["m10"], moments["m01"]], np.float32) / np.float32(max(moments["m00"], 1))


@lru_cache(maxsize=8)
def _edge(view: Viewport, rows: int, columns: int) -> Mask:
    return border(inside_cells(view, rows, columns))
