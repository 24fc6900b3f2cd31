"""Scores the tracking of one sequence, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.models.evaluation.tracking.association import FOUND, FrameOverlap, best_pairs, hota, id_switches, idf1

IdMap = NDArray[np.integer]
# Frames after its return within which a hidden instrument must have its id again.
_BACK_WITHIN = 10
# Tolerance of the boundary score F as a share of the diagonal (DAVIS).
_BOUNDARY = 0.008
# An instance of the truth below this share of the frame is not counted as in view.
_LEAST_SHARE = 0.002


@dataclass(slots=True)
class Returns:
    """Instruments that were hidden: how often they returned, and how often under the id that they had."""

    number: int = 0
    right: int = 0


@dataclass(slots=True, eq=False)
class SequenceScore:
    """Takes maps of ids (H, W), 0 for none, of truth and prediction in order. `longest`: most hidden frames that are counted."""

    longest: int = 50
    frames: list[FrameOverlap] = field(default_factory=list)
    _truths: dict[int, int] = field(default_factory=dict)
    _predictions: dict[int, int] = field(default_factory=dict)
    # For each pair of an instrument and an id, by their places in the maps above: the sum of F over the frames.
    _boundaries: dict[tuple[int, int], float] = field(default_factory=dict)
    _doubled: int = 0
    # For each instrument that has two ids in the last frame: for how many frames.
    _runs: dict[int, int] = field(default_factory=dict)

    def add(self, truth: IdMap, predicted: IdMap) -> None:
        """Score a frame. Truth and prediction have the same size."""
        seen, found, counts = _joint_counts(truth, predicted)
        areas = counts.sum(1)
        rows = np.flatnonzero((seen > 0) & (areas >= _LEAST_SHARE * truth.size))
        specks = np.flatnonzero((seen > 0) & (areas < _LEAST_SHARE * truth.size))
        columns = np.flatnonzero(found > 0)
        # A prediction that lies on a speck of the truth is neither right nor wrong.
        columns = columns[[counts[specks, c].sum() <= 0.5 * counts[:, c].sum() for c in columns]]
        inner = counts[np.ix_(rows, columns)]
        union = areas[rows][:, None] + counts.sum(0)[columns][None] - inner
        truths = np.array([self._truths.setdefault(int(v), len(self._truths)) for v in seen[rows]], np.intp)
        ids = np.array([self._predictions.setdefault(int(v), len(self._predictions)) for v in found[columns]], np.intp)
        self.frames.append(FrameOverlap(truths, ids, inner / np.maximum(union, 1)))
        reach = max(1, round(_BOUNDARY * float(np.hypot(*truth.shape))))
        for row, column in np.argwhere(inner > 0).tolist():
            pair = int(truths[row]), int(ids[column])
            f = _boundary_f(truth == seen[rows[row]], predicted == found[columns[column]], reach)
            self._boundaries[pair] = self._boundaries.get(pair, 0.0) + f
        self._runs = {one: self._runs.get(one, 0) + 1 for one in truths[_doubled(inner, areas[rows])].tolist()}
        self._doubled = max(self._doubled, *self._runs.values(), 0)

    def result(self) -> Mapping[str, float]:
        """Return HOTA, DetA, AssA, IDF1, IDSW, J, F, J&F, doubled (most frames in a row with two ids on one), and returns."""
        truths, predictions = len(self._truths), len(self._predictions)
        if not truths or not predictions:
            whole = float(truths == predictions)
            scores = dict.fromkeys(("HOTA", "DetA", "AssA", "IDF1", "J", "F", "J&F"), whole) | {"IDSW": 0.0}
        else:
            scores = hota(self.frames, truths, predictions)
            scores["IDF1"] = idf1(self.frames, truths, predictions)
            scores["IDSW"] = float(id_switches(self.frames, truths))
            scores |= self._j_and_f()
        returns = self._returns()
        return scores | {
            "doubled": float(self._doubled),
            "returns": float(returns.number),
            "returns_right": float(returns.right),
            "frames": float(len(self.frames)),
        }

    def _j_and_f(self) -> dict[str, float]:
        """Return the means over the instruments of J (IoU) and F (boundary F1), each with the id that suits it best.

        A frame without the instrument and without its id counts 1; F counts where the two overlap.
        """
        total = np.zeros((len(self._truths), len(self._predictions)))
        for frame in self.frames:
            total[np.ix_(frame.truth, frame.predicted)] += frame.iou
        partner = dict(zip(*(side.tolist() for side in best_pairs(total)), strict=True))
        j, f = np.zeros(len(self._truths)), np.zeros(len(self._truths))
        for number in range(len(j)):
            other = partner.get(number, -1)
            absent = sum(number not in frame.truth and other not in frame.predicted for frame in self.frames)
            j[number] = absent + (total[number, other] if other >= 0 else 0)
            f[number] = absent + self._boundaries.get((number, other), 0.0)
        j, f = j / len(self.frames), f / len(self.frames)
        return {"J": float(j.mean()), "F": float(f.mean()), "J&F": float((j + f).mean() / 2)}

    def _returns(self) -> Returns:
        """Count the returns of instruments that were hidden for 2 to `longest` frames, and those with the id from before."""
        returns = Returns()
        for number in range(len(self._truths)):
            ids = [self._id_of(frame, number) for frame in self.frames]
            last, gap = -1, 0
            for place, seen in enumerate(ids):
                if seen is None:
                    gap += 1
                    continue
                if last >= 0 and 2 <= gap <= self.longest:
                    later = [i for i in ids[place : place + _BACK_WITHIN] if i is not None and i >= 0]
                    returns.number += 1
                    returns.right += bool(later) and later[-1] == last
                gap = 0
                last = seen if seen >= 0 else last
        return returns

    def _id_of(self, frame: FrameOverlap, number: int) -> int | None:
        """Return the id that an instrument is found under in a frame, -1 if it is not found; None if it is not in view."""
        rows = np.flatnonzero(frame.truth == number)
        if not len(rows):
            return None
        overlap = frame.iou[rows[0]]
        return int(frame.predicted[overlap.argmax()]) if len(overlap) and overlap.max() >= FOUND else -1


def _joint_counts(truth: IdMap, predicted: IdMap) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Return the values of both maps, and how many pixels have each pair of them (n, m)."""
    seen, found = (np.flatnonzero(np.bincount(ids.ravel())) for ids in (truth, predicted))
    places = [np.zeros(int(values[-1]) + 1, np.intp) for values in (seen, found)]
    for place, values in zip(places, (seen, found), strict=True):
        place[values] = np.arange(len(values))
    pairs = places[0][truth.ravel()] * len(found) + places[1][predicted.ravel()]
    counts = np.bincount(pairs, minlength=len(seen) * len(found)).reshape(len(seen), len(found))
    return seen, found, counts.astype(np.float64)


def _doubled(inner: NDArray[np.float64], areas: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the instruments of which two ids each hold a tenth, and more than they hold of others: bool (n,)."""
    if not inner.size:
        return np.zeros(len(areas), np.bool_)
    mine = inner.argmax(axis=0) == np.arange(len(areas))[:, None]
    return np.asarray(((inner >= 0.1 * areas[:, None]) & mine).sum(axis=1) > 1)


def _boundary_f(one: NDArray[np.bool_], other: NDArray[np.bool_], reach: int) -> float:
    """Return the F1 of two boundaries, each point of which may be `reach` pixels away."""
    edges = [
        cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) for mask in (one, other)
    ]
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    near = [cv2.dilate(edge, disc) for edge in edges]
    counts = [int(np.count_nonzero(edge)) for edge in edges]
    if not all(counts):
        return float(counts[0] == counts[1])
    recall = np.count_nonzero(cv2.bitwise_and(edges[0], near[1])) / counts[0]
    precision = np.count_nonzero(cv2.bitwise_and(edges[1], near[0])) / counts[1]
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0
