"""Everything that is scored of one run: frames go in one by one, every score comes out under its own name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.models.evaluation.scoring.bootstrap import interval
from cliprl.models.evaluation.scoring.boundary import TOLERANCE, SurfaceDice
from cliprl.models.evaluation.scoring.calibration import Calibration
from cliprl.models.evaluation.scoring.confusion_counts import ConfusionCounts, Labels
from cliprl.models.evaluation.scoring.iou import DEFINITIONS, per_class
from cliprl.models.evaluation.scoring.ratio_metric import RatioMetric
from cliprl.models.evaluation.scoring.temporal import TemporalConsistency


@dataclass(frozen=True, slots=True)
class Score:
    """A named score: its title, its rule in a sentence, what it is made of, and the sequences of its rows."""

    title: str
    rule: str
    metric: RatioMetric
    sequences: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Value, interval and value per sequence; None for what is not defined."""
        by_sequence = {name: _number(value) for name, value in self.metric.by_sequence(self.sequences).items()}
        return {
            "title": self.title,
            "rule": self.rule,
            "value": _number(self.metric.value()),
            "interval": interval(self.metric, self.sequences),
            "sequences": by_sequence,
        }


class Evaluator:
    """Takes labelled, predicted frames in their order and keeps what all the scores need, not the frames.

    `tolerance` is that of the boundary score, in pixels of the truth.
    """

    def __init__(self, classes: Sequence[ClassSpec], tolerance: float = TOLERANCE) -> None:
        self.classes = tuple(classes)
        self.counts = ConfusionCounts(len(classes))
        self.boundary = SurfaceDice(len(classes), tolerance)
        self.calibration = Calibration()
        self.consistency = TemporalConsistency(len(classes))

    def add(self, truth: Labels, predicted: Labels, sequence: str) -> float:
        """Score a frame's prediction against its truth: labels uint8 (H, W), IGNORE in the truth where nothing is known.

        Returns how well it went: the mean IoU over the foreground classes in truth or prediction, 1 where there is none.
        """
        self.boundary.add(truth, predicted, sequence)
        overlap, there, seen = self.counts.add(truth, predicted, sequence)[:, 1:]
        union = there + seen - overlap
        return float((overlap[union > 0] / union[union > 0]).mean()) if union.any() else 1.0

    def add_confidence(self, confidence: NDArray[np.floating], correct: NDArray[np.bool_], sequence: str) -> None:
        """Score how sure the prediction was of a frame's pixels, (n,) each."""
        self.calibration.add(confidence, correct, sequence)

    def add_motion(self, picture: Labels, predicted: Labels, clip: str, sequence: str) -> None:
        """Score a prediction against that of the frame before, where it is of the same clip: picture uint8 (H, W, 3) RGB."""
        self.consistency.add(picture, predicted, clip, sequence)

    def scores(self) -> dict[str, Score]:
        """Every score by its key. Of frames that don't follow each other there are no temporal ones."""
        found = {
            key: Score(d.title, d.rule, d.metric(self.counts), self.counts.sequences) for key, d in DEFINITIONS.items()
        }
        tolerance = f"{self.boundary.tolerance:g} px"
        found["nsd"] = Score(
            f"NSD at {tolerance}",
            f"share of both outlines within {tolerance} of the other, pooled over frames; mean over the foreground classes",
            self.boundary.metric(),
            self.boundary.sequences,
        )
        found["ece"] = Score(
            "ECE (lower is better)",
            "mean gap between confidence and accuracy, over 15 bins of all cells",
            self.calibration.metric(),
            self.calibration.sequences,
        )
        return found | self._temporal()

    def _temporal(self) -> dict[str, Score]:
        if not len(self.consistency.still):
            return {}
        pairs = self.consistency.still.sequences
        rule = "consecutive predictions, pooled over pairs; mean over the foreground classes; needs no truth"
        return {
            "consecutive_iou": Score("IoU of consecutive masks", rule, self.consistency.iou(), pairs),
            "flow_dice": Score(
                "Dice after warping by optical flow", f"DIS flow; {rule}", self.consistency.warped_dice(), pairs
            ),
        }

    def to_json(self) -> dict[str, Any]:
        """All scores with intervals, per class and per sequence, as plain JSON values."""
        sequences = self.counts.sequences
        return {
            "frames": len(self.counts),
            "sequences": {name: sequences.count(name) for name in dict.fromkeys(sequences)},
            "classes": [spec.name for spec in self.classes],
            "scores": {key: score.to_json() for key, score in self.scores().items()},
            "per_class": self._per_class(),
        }

    def _per_class(self) -> Mapping[str, list[Any]]:
        nsd = [_number(v) for v in self.boundary.metric().columns()]
        return per_class(self.counts) | {"nsd": [None, *nsd]}


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else float(value)
