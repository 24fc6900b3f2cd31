"""Divides the label map of a frame into the parts of instruments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.tracking.contact import SPLIT_CELLS, CellMaps, of_its_colors, share_cells
from cliprl.pipeline.tracking.part import Part, make_part
from cliprl.pipeline.tracking.shafts import Shaft, are_one, entry_distance, split
from cliprl.pipeline.tracking.track import Track

# Cells of the smallest region that counts.
_SPECK = 8
# Share of a region, or of what is expected of an instrument, that must coincide for the region to hold the instrument.
_OF_REGION, _OF_TRACK = 0.12, 0.4
# Share of the place of a hidden instrument, or of what is not expected in a region, that must coincide for the region to hold it.
_OF_PLACE = 0.5
# How much less those cells may look like the hidden instrument than like one in view: there, place counts more than look.
_UNSURE = 0.15
# Share of the cells of an instrument below which it has vanished from one frame to the next.
_OF_VANISHED = 0.25
# Frames until which a track that never reached the edge may turn out to be a piece of an instrument that it touches.
_YOUNG = 15
# Frames until which a track may turn out to be a piece of an older one that it touches.
_PIECE = 60
# Cells of its colors at least, as a share too of those it had, by which a hidden instrument is back beside one in view.
_PEEK, _OF_PEEK = 10, 0.3
# Looks, one each fourth frame, after which an instrument that is seen to be two is two.
_DOUBLED = 5


@dataclass(frozen=True, slots=True, eq=False)
class FrameRegions:
    """The connected regions of the groups of a frame.

    cells: flat indices of the cells of all groups. numbers: the region of each of them, from 1, 0 for a speck. wholes: regions
    1, 2, …, as parts without a track.
    """

    cells: NDArray[np.intp]
    numbers: NDArray[np.intp]
    wholes: list[Part]

    def overlaps(self, keys: NDArray[np.uint16], count: int) -> NDArray[np.intp]:
        """Return how many cells of each region (0: specks) each key of a map (h, w), all below `count`, has: (regions, keys)."""
        pairs = self.numbers * count + keys.ravel().take(self.cells)
        return np.bincount(pairs, minlength=(len(self.wholes) + 1) * count).reshape(-1, count)


def find_regions(maps: CellMaps) -> FrameRegions:
    """Find the connected regions of each group."""
    (cells,) = (maps.groups.ravel() != 0).nonzero()
    numbers, wholes = np.zeros(len(cells), np.intp), list[Part]()
    for group, area in enumerate(np.bincount(maps.groups.ravel().take(cells)).tolist()):
        if not group or area < _SPECK:
            continue
        mask = (maps.groups == group).view(np.uint8)
        # Of the algorithms, this one is the fastest on small maps.
        found = cv2.connectedComponentsWithStatsWithAlgorithm(mask, 8, cv2.CV_32S, cv2.CCL_BBDT)
        count, components, stats, centers = found
        places = np.zeros(count, np.intp)
        for index, size in enumerate(stats[:, cv2.CC_STAT_AREA].tolist()):
            if index and size >= _SPECK:
                region = (components == index).view(np.uint8)
                wholes.append(Part(region, group, 0, size, centers[index].astype(np.float32), maps))
                places[index] = len(wholes)
        numbers += places.take(components.ravel().take(cells))
    return FrameRegions(cells, numbers, wholes)


def settle(regions: FrameRegions, last: NDArray[np.uint16], maps: CellMaps, tracks: Mapping[int, Track]) -> bool:
    """Give every region the track that it lies on in the map of keys of the last frame, or none and return False.

    That is where motion may decide: unless each region lies on one track and hardly on another, and each track of that map is
    still in view.
    """
    shown = {key: track for key, track in tracks.items() if not track.missing}
    counts = regions.overlaps(last, max(shown, default=0) + 1).tolist()
    if any(sum(own[key] for own in counts) < _OF_PLACE * track.cells for key, track in shown.items()):
        return False
    found = [max(range(len(own)), key=own.__getitem__) for own in counts[1:]]
    for whole, own, key in zip(regions.wholes, counts[1:], found, strict=True):
        track = shown.get(key)
        if track is None or track.group != whole.group or whole.cells - own[key] >= SPLIT_CELLS:
            return False
        others = ((own[other.key], other.cells) for other in shown.values() if other is not track and own[other.key])
        if any(2 * held >= min(_OF_REGION * whole.cells, _OF_TRACK * cells) for held, cells in others):
            return False
    if any(_returned(whole, [key], last, maps, tracks) for whole, key in zip(regions.wholes, found, strict=True)):
        return False
    for whole, key in zip(regions.wholes, found, strict=True):
        whole.key = key
    return True


def find_parts(
    regions: FrameRegions, expected: NDArray[np.uint16], maps: CellMaps, tracks: Mapping[int, Track]
) -> list[Part]:
    """Divide the regions of a frame into parts, each of which continues the track that is expected there."""
    totals = np.bincount(expected.ravel())
    shared = regions.overlaps(expected, len(totals))
    # What a region holds of a track that has vanished is another's, unless the region is by itself and enters.
    vanished = set((shared.sum(axis=0) < _OF_VANISHED * totals).nonzero()[0].tolist())
    parts: list[Part] = []
    for whole, counts in zip(regions.wholes, shared[1:], strict=True):
        keys = _expected_in(whole, counts, totals, tracks)
        if vanished.intersection(keys):
            if len(keys) == 1 and whole.runs:
                whole.rest_of = keys[0]
            keys = [key for key in keys if key not in vanished or not tracks[key].has_entered]
        parts += _divide(whole, expected, maps, counts, keys, tracks)
    return parts


def _expected_in(
    whole: Part, counts: NDArray[np.intp], totals: NDArray[np.intp], tracks: Mapping[int, Track]
) -> list[int]:
    """Return the tracks that a region continues. counts, totals: how many of its cells, and of all, each is expected in."""
    return [
        key
        for key in counts.nonzero()[0].tolist()
        if key in tracks
        and tracks[key].group == whole.group
        and (counts[key] >= _OF_REGION * whole.cells or counts[key] >= _OF_TRACK * totals[key])
    ]


def _divide(
    whole: Part,
    expected: NDArray[np.uint16],
    maps: CellMaps,
    counts: NDArray[np.intp],
    keys: list[int],
    tracks: Mapping[int, Track],
) -> list[Part]:
    """Divide a region among the tracks `keys`. counts: how many of its cells each track is expected in; at 0, none."""
    if not keys:
        return _by_shafts(whole)
    may_hold = len(keys) == 1 or counts[0] >= SPLIT_CELLS
    if may_hold and (returned := _returned(whole, keys, expected, maps, tracks)):
        expected = expected.copy()
        for key, cells in returned.items():
            expected.ravel()[cells] = key
        counts = np.bincount(expected[whole.mask > 0], minlength=1)
        keys += list(returned)
    if len(keys) > 1:
        keys = _without_pieces(keys, tracks, counts, whole)
    if len(keys) == 1 and whole.cells - counts[keys[0]] < SPLIT_CELLS:
        whole.key = keys[0]
        return [whole]
    shares = share_cells(whole.mask, keys, expected, maps, tracks)
    if len(keys) == 1 and not shares.others:
        whole.key = keys[0]
        return [whole]
    masks = [(key, (shares.owner == key).view(np.uint8)) for key in keys]
    parts = [make_part(mask, whole.group, key, maps) for key, mask in masks if mask.any()]
    parts = _without_hidden(parts, tracks)
    for mask, host in shares.others:
        parts.append(make_part(mask, whole.group, 0, maps))
        parts[-1].host = host
    return parts


def _without_hidden(parts: list[Part], tracks: Mapping[int, Track]) -> list[Part]:
    """Give what is left of an instrument behind a larger one of its region to that one.

    It keeps cells of that one otherwise: along both, nothing shows where one ends.
    """
    parts = sorted(parts, key=lambda part: part.cells)
    for place, part in enumerate(parts):
        if host := next((other for other in parts[place + 1 :] if part.is_behind(other, tracks)), None):
            mask = np.asarray(cv2.bitwise_or(part.mask, host.mask), np.uint8)
            rest = [other for other in parts if other is not part and other is not host]
            return _without_hidden([make_part(mask, host.group, host.key, host.maps), *rest], tracks)
    return parts


def _returned(
    whole: Part, keys: list[int], expected: NDArray[np.uint16], maps: CellMaps, tracks: Mapping[int, Track]
) -> dict[int, NDArray[np.intp]]:
    """Return the hidden tracks that a region holds again beside others, where they were, with the cells (flat indices).

    What is not expected in it is of one, or beside a single one, cells of its colors are: it slides out
    from behind that one by a few in each frame.
    """
    found: dict[int, NDArray[np.intp]] = {}
    for track in tracks.values():
        if track.place is None or track.group != whole.group or not track.id or maps.looks is None:
            continue
        place = np.asarray(cv2.bitwise_and(whole.mask, track.around_place()), np.uint8)
        if cv2.countNonZero(place) < _PEEK:
            continue
        free = (expected == 0).view(np.uint8) & whole.mask
        for cells in found.values():
            free.ravel()[cells] = 0
        mask, held, surer = free & place, cv2.countNonZero(track.place), -_UNSURE
        if cv2.countNonZero(mask) < max(SPLIT_CELLS, _OF_PLACE * min(held, cv2.countNonZero(free))):
            if len(keys) > 1 or not _is_lasting(track, tracks[keys[0]].age):
                continue
            colored = of_its_colors(place, max(_PEEK, _OF_PEEK * held), track, tracks[keys[0]], maps)
            if colored is None:
                continue
            mask, surer = colored, 0.0
        look = maps.looks.embed(mask)
        if track.likeness(look) > max(tracks[key].likeness(look) for key in keys) + surer:
            found[track.key] = np.flatnonzero(mask)
    return found


def _without_pieces(keys: list[int], tracks: Mapping[int, Track], counts: NDArray[np.intp], whole: Part) -> list[int]:
    """Drop the tracks that turn out to be pieces of another.

    They are young, and never reached the edge, or there are fewer entries than tracks in the region.
    """
    oldest = max(tracks[key].age for key in keys)
    kept = [key for key in keys if tracks[key].has_entered or tracks[key].hits > _YOUNG]
    lasting = [key for key in kept if _is_lasting(tracks[key], oldest)]
    if len(lasting) < len(kept) and len(kept) > (len(whole.shafts) or len(whole.runs)):
        kept = lasting
    return kept or [max(keys, key=lambda key: int(counts[key]))]


def _is_lasting(track: Track, oldest: int) -> bool:
    """Whether a track is no longer a piece of one of age `oldest` that it touches."""
    return track.age > _PIECE or track.age + _YOUNG > oldest


def _by_shafts(whole: Part) -> list[Part]:
    """Divide a region among its shafts."""
    if len(whole.runs) < 2 or len(whole.shafts) < 2:
        return [whole]
    masks = split(whole.mask, whole.shafts)
    return [make_part(mask, whole.group, 0, whole.maps) for mask in masks if mask.any()]


def without_doubles(parts: list[Part], expected: NDArray[np.uint16], tracks: Mapping[int, Track]) -> list[Part]:
    """Where a track enters by several shafts for a while, let it go on with the one that it had."""
    _give_back(parts, tracks)
    by_key: dict[int, list[Part]] = {}
    for part in parts:
        if part.key and part.cells >= SPLIT_CELLS and tracks[part.key].due:
            by_key.setdefault(part.key, []).append(part)
    for key, held in by_key.items():
        track = tracks[key]
        shafts = [shaft for part in held for shaft in part.shafts] if sum(len(part.runs) for part in held) > 1 else []
        track.doubled = track.doubled + 1 if _are_two(shafts) else 0
        if track.doubled >= _DOUBLED:
            track.doubled = 0
            parts = [part for part in parts if part not in held] + _separated(held, track, expected)
    return parts


def _give_back(parts: list[Part], tracks: Mapping[int, Track]) -> None:
    """Give a piece that enters beside the larger rest of its track, where a hidden one may return, to the one it looks more like.

    An instrument enters once. What returns beside another by a few cells a frame is taken for that one until they part.
    """
    shown = {part.key for part in parts}
    hidden = [track for track in tracks.values() if track.place is not None and track.id and track.key not in shown]
    for part in parts if hidden else ():
        rest = [other for other in parts if other.key == part.key and other.cells > part.cells]
        if not rest or not part.key or not part.runs or not any(one.runs for one in rest):
            continue
        near = [t.key for t in hidden if t.group == part.group and t.is_expected_at(part.mask, part.cells)]
        if near and part.look is not None:
            part.key = max((tracks[key].likeness(part.look), key) for key in (part.key, *near))[1]


def _are_two(shafts: list[Shaft]) -> bool:
    return any(not are_one(one, other) for place, one in enumerate(shafts) for other in shafts[:place])


def _separated(held: list[Part], track: Track, expected: NDArray[np.uint16]) -> list[Part]:
    """Divide the parts of a track by their shafts; the one that is most like the track's stays, the others are new."""
    pieces = [piece for part in held for piece in _by_shafts(part)]
    entered = [piece for piece in pieces if piece.shafts]
    known = track.shaft

    def unlike(piece: Part) -> float:
        shared = np.count_nonzero(expected[piece.mask > 0] == track.key)
        return min(entry_distance(shaft, known) for shaft in piece.shafts) if known is not None else -float(shared)

    first = min(entered, key=unlike) if entered else pieces[0]
    for piece in pieces:
        apart = piece is not first and bool(piece.shafts) and _are_two([*first.shafts, *piece.shafts])
        piece.key = 0 if apart else track.key
    return pieces
