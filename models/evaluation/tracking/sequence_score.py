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
    _maps: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = field(default_factory=list)
    _diagonal: float = 0.0

    def add(self, truth: IdMap, predicted: IdMap) -> None:
        """Score a frame. Truth and prediction have the same size."""
        seen, truth_index = np.unique(truth, return_inverse=True)
        found, index = np.unique(predicted, return_inverse=True)
        counts = np.zeros((len(seen), len(found)))
        np.add.at(counts, (truth_index.ravel(), index.ravel()), 1)
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
        self._diagonal = float(np.hypot(*truth.shape))
        self._maps.append(
            (_packed(truth, self._truths, seen[rows]), _packed(predicted, self._predictions, found[columns]))
        )

    def result(self) -> Mapping[str, float]:
        """Return HOTA, DetA, AssA, IDF1, IDSW, J, F, J&F, doubled (longest run of frames with two ids on one), and returns."""
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
            "doubled": float(self._doubled()),
            "returns": float(returns.number),
            "returns_right": float(returns.right),
            "frames": float(len(self.frames)),
        }

    def _j_and_f(self) -> dict[str, float]:
        """Return the means over the instruments of J (IoU) and F (boundary F1), each with the id that suits it best."""
        total = np.zeros((len(self._truths), len(self._predictions)))
        for frame in self.frames:
            total[np.ix_(frame.truth, frame.predicted)] += frame.iou
        partner = dict(zip(*(side.tolist() for side in best_pairs(total)), strict=True))
        j, f = np.zeros(len(self._truths)), np.zeros(len(self._truths))
        reach = max(1, round(_BOUNDARY * self._diagonal))
        for packed in self._maps:
            truth, predicted = map(_unpacked, packed)
            for number in range(len(j)):
                one, other = truth == number + 1, predicted == partner.get(number, 254) + 1
                union = np.count_nonzero(np.logical_or(one, other))
                j[number] += np.count_nonzero(np.logical_and(one, other)) / union if union else 1.0
                f[number] += _boundary_f(one, other, reach) if union else 1.0
        j, f = j / len(self._maps), f / len(self._maps)
        return {"J": float(j.mean()), "F": float(f.mean()), "J&F": float((j + f).mean() / 2)}

    def _doubled(self) -> int:
        """Return the longest run of frames in which two ids each hold a tenth of an instrument more than they hold of others."""
        longest, run = 0, 0
        for packed in self._maps:
            truth, predicted = map(_unpacked, packed)
            counts = np.bincount(truth.ravel().astype(np.intp) * 256 + predicted.ravel(), minlength=65536).reshape(
                256, 256
            )
            mine = counts[1:, 1:].argmax(axis=0)
            held = counts[1:, 1:]
            areas = counts[1:].sum(axis=1)
            two = any(np.count_nonzero((held[i] >= 0.1 * areas[i]) & (mine == i)) > 1 for i in np.flatnonzero(areas))
            run = run + 1 if two else 0
            longest = max(longest, run)
        return longest

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


def _packed(ids: IdMap, numbers: Mapping[int, int], counted: IdMap) -> NDArray[np.uint8]:
    """Return a PNG of the map of instances, numbered from 1."""
    small = np.zeros(ids.shape, np.uint8)
    for value in counted:
        small[ids == value] = numbers[int(value)] % 253 + 1
    return cv2.imencode(".png", small, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].astype(np.uint8)


def _unpacked(png: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(png, cv2.IMREAD_UNCHANGED), np.uint8)


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
