"""HOTA, IDF1 and id switches of one sequence from the overlaps of its frames, by the rules of TrackEval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
# IoU from which an instance counts as found, for IDF1 and id switches; HOTA is a mean over `ALPHAS`.
FOUND = 0.5
ALPHAS = np.arange(0.05, 0.99, 0.05)
_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True, slots=True, eq=False)
class FrameOverlap:
    """The instances of a frame: their ids in truth (n,) and prediction (m,), counted from 0 without gaps, and IoU (n, m)."""

    truth: NDArray[np.intp]
    predicted: NDArray[np.intp]
    iou: Array


def best_pairs(scores: Array) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the pairs with the largest total of `scores` (rows, columns), without those of score 0."""
    import lap

    if not scores.size:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    _, columns, _ = lap.lapjv(-np.ascontiguousarray(scores), extend_cost=True)
    rows = np.flatnonzero(np.asarray(columns) >= 0)
    columns = np.asarray(columns, np.intp)[rows]
    found = scores[rows, columns] > 0
    return rows[found], columns[found]


def hota(frames: list[FrameOverlap], truths: int, predictions: int) -> dict[str, float]:
    """Return HOTA, DetA and AssA: means over the thresholds `ALPHAS`. `truths`, `predictions`: how many ids there are."""
    potential, in_truth, in_prediction = (
        np.zeros((truths, predictions)),
        np.zeros((truths, 1)),
        np.zeros((1, predictions)),
    )
    for frame in frames:
        both = frame.iou.sum(0)[None] + frame.iou.sum(1)[:, None] - frame.iou
        potential[np.ix_(frame.truth, frame.predicted)] += np.where(both > _EPS, frame.iou / np.maximum(both, _EPS), 0)
        in_truth[frame.truth] += 1
        in_prediction[0, frame.predicted] += 1
    alignment = potential / np.maximum(in_truth + in_prediction - potential, _EPS)
    matches = np.zeros((len(ALPHAS), truths, predictions))
    for frame in frames:
        rows, columns = best_pairs(alignment[np.ix_(frame.truth, frame.predicted)] * frame.iou)
        for i, alpha in enumerate(ALPHAS):
            good = frame.iou[rows, columns] >= alpha - _EPS
            matches[i, frame.truth[rows[good]], frame.predicted[columns[good]]] += 1
    hits = matches.sum((1, 2))
    detection = hits / np.maximum(in_truth.sum() + in_prediction.sum() - hits, 1)
    agreement = matches / np.maximum(in_truth + in_prediction - matches, 1)
    association = (matches * agreement).sum((1, 2)) / np.maximum(hits, 1)
    return {
        "HOTA": float(np.sqrt(detection * association).mean()),
        "DetA": float(detection.mean()),
        "AssA": float(association.mean()),
    }


def idf1(frames: list[FrameOverlap], truths: int, predictions: int) -> float:
    """Return the F1 of the best one-to-one matching of ids over the sequence, at IoU `FOUND`; 1 if there is nothing."""
    together, total = np.zeros((truths, predictions)), 0
    for frame in frames:
        together[np.ix_(frame.truth, frame.predicted)] += frame.iou >= FOUND
        total += len(frame.truth) + len(frame.predicted)
    rows, columns = best_pairs(together)
    return 2 * float(together[rows, columns].sum()) / total if total else 1.0


def id_switches(frames: list[FrameOverlap], truths: int) -> int:
    """Count the frames in which an instance of the truth is found under another id than when it was last found (CLEAR MOT)."""
    switches, last, before = 0, np.full(truths, -1), np.full(truths, -1)
    for frame in frames:
        kept = before[frame.truth][:, None] == frame.predicted[None]
        rows, columns = best_pairs(np.where(frame.iou >= FOUND - _EPS, frame.iou + 1000 * kept, 0))
        truth, predicted = frame.truth[rows], frame.predicted[columns]
        switches += int(np.count_nonzero((last[truth] >= 0) & (last[truth] != predicted)))
        last[truth] = predicted
        before[:] = -1
        before[truth] = predicted
    return switches
