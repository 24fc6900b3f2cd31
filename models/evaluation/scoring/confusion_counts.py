"""Pixel counts of the overlap scores, for each frame and class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import CliprlError
from cliprl.models.data.sample import IGNORE

Labels = NDArray[np.uint8]
Pixels = NDArray[np.int64]


class ConfusionCounts:
    """Pixel counts int64 (N, K) of N frames: `overlap` of truth and prediction, `truth`, and `predicted`. Class 0 is background.

    Pixels whose truth is IGNORE count nowhere. `sequences` names the video each frame is from.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.sequences: list[str] = []
        self._rows: list[Pixels] = []

    def add(self, truth: Labels, predicted: Labels, sequence: str) -> Pixels:
        """Count one frame: two label maps uint8 (H, W) of one size. Returns its overlap, truth and predicted, (3, K).

        Raises CliprlError where the sizes differ or a label is not a class.
        """
        if truth.shape != predicted.shape:
            raise CliprlError(
                f"a truth of {_size(truth)} pixels can't be scored against a prediction of {_size(predicted)} in '{sequence}': "
                "scale the prediction to the truth"
            )
        known = truth != IGNORE
        truth, predicted = truth[known], predicted[known]
        for labels, side in ((truth, "truth"), (predicted, "prediction")):
            if labels.size and int(labels.max()) >= self.classes:
                raise CliprlError(
                    f"the {side} of a frame of '{sequence}' holds label {labels.max()}: classes are 0..{self.classes - 1}"
                )
        parts = (truth[truth == predicted], truth, predicted)
        row = np.stack([np.bincount(part, minlength=self.classes) for part in parts])
        self._rows.append(row)
        self.sequences.append(sequence)
        return row

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def overlap(self) -> Pixels:
        """Pixels of each class in truth and prediction both, (N, K)."""
        return self._column(0)

    @property
    def truth(self) -> Pixels:
        """Pixels of each class in the truth, (N, K)."""
        return self._column(1)

    @property
    def predicted(self) -> Pixels:
        """Pixels of each class in the prediction, (N, K)."""
        return self._column(2)

    @property
    def union(self) -> Pixels:
        """Pixels of each class in truth or prediction, (N, K)."""
        return self.truth + self.predicted - self.overlap

    def _column(self, which: int) -> Pixels:
        if not self._rows:
            return np.zeros((0, self.classes), np.int64)
        return np.stack([row[which] for row in self._rows])

    def extend(self, other: ConfusionCounts) -> None:
        """Append the frames of another run over the same classes."""
        self.sequences += other.sequences
        self._rows += other._rows

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, the inverse of `from_json`."""
        return {"classes": self.classes, "sequences": self.sequences, "rows": [row.tolist() for row in self._rows]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Counts that `to_json` wrote."""
        counts = cls(int(data["classes"]))
        counts.sequences = [str(name) for name in data["sequences"]]
        counts._rows = [np.array(row, np.int64) for row in data["rows"]]
        return counts


def _size(labels: Labels) -> str:
    return "x".join(str(n) for n in labels.shape[::-1])


def rows_of(sequences: Sequence[str]) -> dict[str, NDArray[np.intp]]:
    """The rows of each sequence, in the order in which the sequences first occur."""
    names = np.array(sequences)
    return {name: np.flatnonzero(names == name) for name in dict.fromkeys(sequences)}
