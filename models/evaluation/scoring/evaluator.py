"""Accumulate frames one by one and compute every score under an unambiguous name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.models.data.sample import IGNORE
from cliprl.models.evaluation.scoring.bootstrap import interval
from cliprl.models.evaluation.scoring.boundary import TOLERANCE_PX, SurfaceDice
from cliprl.models.evaluation.scoring.calibration import Calibration
from cliprl.models.evaluation.scoring.confusion_counts import ConfusionCounts, Labels, Pixels
from cliprl.models.evaluation.scoring.iou import DEFINITIONS, dataset_miou_foreground, per_class
from cliprl.models.evaluation.scoring.ratio_metric import RatioMetric, mean_of_ratios
from cliprl.models.evaluation.scoring.temporal import TemporalConsistency


@dataclass(frozen=True, slots=True)
class Score:
    """A named score: its title, its rule in a sentence, its metric, and the sequences of the metric's rows."""

    title: str
    rule: str
    metric: RatioMetric
    sequences: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Return value, interval and value per sequence; None for an undefined score."""
        by_sequence = {name: _number(value) for name, value in self.metric.by_sequence(self.sequences).items()}
        return {
            "title": self.title,
            "rule": self.rule,
            "value": _number(self.metric.value()),
            "interval": interval(self.metric, self.sequences),
            "sequences": by_sequence,
        }


class Evaluator:
    """Takes labeled, predicted frames in order and accumulates the sums of all scores, not the frames.

    `tolerance` is that of the boundary score, in pixels of the truth.
    """

    def __init__(self, classes: Sequence[ClassSpec], tolerance: float = TOLERANCE_PX) -> None:
        self.classes = tuple(classes)
        self.counts, self.instrument = ConfusionCounts(len(classes)), ConfusionCounts(2)
        self._is_instrument = np.full(256, IGNORE, np.uint8)
        self._is_instrument[: len(classes)] = [spec.kind == "instrument" for spec in classes]
        self.boundary = SurfaceDice(len(classes), tolerance)
        self.calibration = Calibration()
        self.consistency = TemporalConsistency(len(classes))
        self._false_area = 0.0

    def add(self, truth: Labels, predicted: Labels, sequence: str) -> float:
        """Score a frame's prediction against its truth: labels uint8 (H, W), IGNORE in the truth where nothing is known.

        Returns the frame's score: the mean IoU over the foreground classes in truth or prediction, 1 where there is none.
        """
        self.boundary.add(truth, predicted, sequence)
        overlap, there, seen = self.counts.add(truth, predicted, sequence)[:, 1:]
        common, known, called = self.instrument.add(
            self._is_instrument[truth], self._is_instrument[predicted], sequence
        )
        self._false_area = float(called[1] - common[1]) / max(1, int(known.sum()))
        union = there + seen - overlap
        return float((overlap[union > 0] / union[union > 0]).mean()) if union.any() else 1.0

    def false_area(self) -> float:
        """Return the share of the last frame's pixels that are falsely called instrument."""
        return self._false_area

    def add_confidence(self, confidence: NDArray[np.floating], correct: NDArray[np.bool_], sequence: str) -> None:
        """Add the confidence and correctness of a frame's pixels, (n,) each."""
        self.calibration.add(confidence, correct, sequence)

    def add_motion(self, image: Labels, predicted: Labels, clip: str, sequence: str) -> None:
        """Compare a prediction with that of the previous frame of the same clip: image uint8 (H, W, 3) RGB."""
        self.consistency.add(image, predicted, clip, sequence)

    def scores(self) -> dict[str, Score]:
        """Return every score by its key; temporal ones only if there are consecutive frames."""
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
        return found | self._instrument_scores() | self._temporal()

    def _instrument_scores(self) -> dict[str, Score]:
        if not any(spec.kind == "instrument" for spec in self.classes):
            return {}
        sequences = self.instrument.sequences
        return {
            "instrument_iou": Score(
                "instrument IoU",
                "IoU of all instrument classes as one, pooled over frames",
                dataset_miou_foreground(self.instrument),
                sequences,
            ),
            "false_alarms": Score(
                "false alarms (lower is better)",
                "share of the pixels without instrument that are called instrument, pooled over frames",
                mean_of_ratios(*_false_alarms(self.instrument)),
                sequences,
            ),
        }

    def _temporal(self) -> dict[str, Score]:
        if not len(self.consistency.still):
            return {}
        pairs, warped = self.consistency.still.sequences, self.consistency.warped.sequences
        rule = "consecutive predictions, pooled over pairs; mean over the foreground classes; needs no truth"
        found = {"consecutive_iou": Score("IoU of consecutive masks", rule, self.consistency.iou(), pairs)}
        if warped:
            title = "Dice after warping by optical flow"
            found["flow_dice"] = Score(title, f"DIS flow; {rule}", self.consistency.warped_dice(), warped)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return all scores with intervals, per class and per sequence, as plain JSON values."""
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


def _false_alarms(counts: ConfusionCounts) -> tuple[Pixels, Pixels]:
    """Return per frame the pixels falsely called instrument, and those without instrument, (N, 1) each."""
    return (counts.predicted - counts.overlap)[:, 1:], counts.truth[:, :1]


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else float(value)
