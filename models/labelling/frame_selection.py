"""Choose frames by doubt, by disagreement of base and refined masks, and by novelty, spaced in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class FrameMeasure:
    """What speaks for labelling a frame.

    doubt: estimated probability that the mask is wrong (`frame_doubt`). disagreement: share of the cells whose class the
    refinement changed. embedding: float32 (D,), mean feature of the frame.
    """

    video: str
    index: int
    seconds: float
    doubt: float
    disagreement: float
    embedding: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ChosenFrame:
    """A chosen frame, and the measure by which it stands out most, in words."""

    measure: FrameMeasure
    reason: str


def choose_frames(measures: Sequence[FrameMeasure], count: int, gap: float) -> list[ChosenFrame]:
    """Choose at most `count` frames, the best first.

    Each time the frame is taken whose mean rank by doubt, disagreement and novelty (distance of its embedding from the nearest
    chosen one) is highest, among those at least `gap` seconds from every chosen frame of the same video. Where no such frame is
    left, the gap is halved.
    """
    if not measures:
        return []
    doubts, disagreements = (np.array([getattr(m, key) for m in measures]) for key in ("doubt", "disagreement"))
    embeddings = _centered(np.stack([m.embedding for m in measures]))
    times = np.array([m.seconds for m in measures])
    videos = np.array([m.video for m in measures])
    novelty = np.zeros(len(measures), np.float32)  # until one is chosen, all are alike
    free, taken, chosen = np.ones(len(measures), bool), np.zeros(len(measures), bool), list[ChosenFrame]()
    fixed = _ranks(doubts), _ranks(disagreements)
    while len(chosen) < min(count, len(measures)):
        if not free.any():
            gap = gap / 2 if gap > 1e-3 else 0.0
            near = [(videos == m.measure.video) & (abs(times - m.measure.seconds) < gap) for m in chosen]
            free = ~np.logical_or.reduce([taken, *near])
            continue
        ranks = np.stack([*fixed, _ranks(novelty)])
        best = int(np.where(free, ranks.mean(axis=0), -1).argmax())
        chosen.append(ChosenFrame(measures[best], _reason(measures[best], float(novelty[best]), ranks[:, best])))
        taken[best] = True
        free &= ~((videos == videos[best]) & (abs(times - times[best]) < gap)) & ~taken
        distance = 1 - embeddings @ embeddings[best]
        novelty = distance if len(chosen) == 1 else np.minimum(novelty, distance)
    return chosen


def _centered(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the embeddings without their mean, of length 1: what all frames share tells none apart."""
    rest = embeddings - embeddings.mean(axis=0)
    return np.asarray(rest / np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-9), np.float32)


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the share of the other values that each value exceeds, 0..1; equal values have equal ranks."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, values, "left") / max(len(values) - 1, 1)


def _reason(measure: FrameMeasure, novelty: float, ranks: NDArray[np.float64]) -> str:
    texts = (
        f"doubt {measure.doubt:.3f}",
        f"refinement changed {measure.disagreement:.1%}",
        f"unlike the others, distance {novelty:.3f}",
    )
    first = int(ranks.argmax())
    return f"{texts[first]} (more than {ranks[first]:.0%} of the others)"
