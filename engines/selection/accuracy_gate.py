"""The accuracy gate: accept an engine only if its outputs agree with the reference outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines.bundle.reference_outputs import DRAWN_KEY, Logits, Reference

# Raised when the rule changes, so that verdicts under an older one are not trusted.
GATE_VERSION = "2"
MIN_COSINE = 0.995
MIN_AGREEMENT = 0.99
# Drawn images are like nothing that a network was trained on: it is undecided in more places, and rounding decides there.
MIN_AGREEMENT_DRAWN = 0.98
MIN_CLASS_IOU = 0.9
# A label this close to the winner, in the reference's own logits, is as good as the winner when classes are judged: along
# every outline labels tie, and of a thin class the outline is most. (On real frames bf16 kept 0.86 of one class's IoU
# when ties counted, and all of it when they did not.)
TIE = 0.5
# A class is judged on its own where the reference gives it at least this share of all cells.
CLASS_SHARE = 0.005


@dataclass(frozen=True, slots=True)
class Comparison:
    """One network's outputs beside the reference's.

    `cosine` is that of the logits, each cell's mean over the classes taken out; `agreement` the share of cells with the same
    label; `classes` the IoU of the labels, ties forgiven, for each class that the reference shows enough of. `finite` is
    False for NaN or infinity; `floor` is the least agreement.
    """

    stage: str
    cosine: float
    agreement: float
    classes: Mapping[str, float]
    finite: bool
    floor: float = MIN_AGREEMENT

    def faults(self) -> list[str]:
        """What is too far off, in words with figures; empty where all is well."""
        if not self.finite:
            return [f"{self.stage}: not every number is finite"]
        faults = []
        if self.cosine < MIN_COSINE:
            faults.append(f"{self.stage}: logits cosine {self.cosine:.4f} is below {MIN_COSINE}")
        if self.agreement < self.floor:
            faults.append(f"{self.stage}: {self.agreement:.2%} of labels agree, not {self.floor:.0%}")
        poor = {name: iou for name, iou in self.classes.items() if iou < MIN_CLASS_IOU}
        faults += [f"{self.stage}: IoU of {name} is {iou:.3f}, not {MIN_CLASS_IOU}" for name, iou in poor.items()]
        return faults

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "stage": self.stage,
            "finite": self.finite,
            "cosine": round(self.cosine, 6),
            "agreement": round(self.agreement, 6),
            "classes": {name: round(iou, 4) for name, iou in self.classes.items()},
        }


def judge(base: Logits, refined: Logits, reference: Reference, names: Sequence[str]) -> tuple[Comparison, Comparison]:
    """Compare the logits (N, K, h, w) of the encoder, and those after refinement, with the reference's."""
    floor = MIN_AGREEMENT_DRAWN if reference.source == DRAWN_KEY else MIN_AGREEMENT
    return (
        compare_logits("encoder", base, reference.base, names, floor),
        compare_logits("refined", refined, reference.refined, names, floor),
    )


def compare_logits(
    stage: str, found: Logits, expected: Logits, names: Sequence[str], floor: float = MIN_AGREEMENT
) -> Comparison:
    """Compare logits (N, K, h, w) with the expected ones, of the same shape."""
    if not np.isfinite(found).all():
        return Comparison(stage, 0.0, 0.0, {}, False, floor)
    labels, truth = found.argmax(1), expected.argmax(1)
    agreement = float((labels == truth).mean())
    ious = _class_ious(_ties_forgiven(labels, truth, expected), truth, names)
    return Comparison(stage, _cosine(found, expected), agreement, ious, True, floor)


def _ties_forgiven(labels: NDArray[Any], truth: NDArray[Any], expected: Logits) -> NDArray[Any]:
    """The labels, but the reference's own wherever that gives the label nearly as much as its winner."""
    given = np.take_along_axis(expected, labels[:, None], axis=1)[:, 0]
    return np.where(expected.max(axis=1) - given < TIE, truth, labels)


def _cosine(found: Logits, expected: Logits) -> float:
    one, other = (_centered(logits) for logits in (found, expected))
    scale = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / scale if scale else float(np.array_equal(one, other))


def _centered(logits: Logits) -> NDArray[np.float64]:
    """Without each cell's mean over the classes, which changes no probability and would hide what does."""
    wide = logits.astype(np.float64)
    return np.ravel(wide - wide.mean(axis=1, keepdims=True))


def _class_ious(labels: NDArray[Any], truth: NDArray[Any], names: Sequence[str]) -> dict[str, float]:
    ious = {}
    for index, name in enumerate(names):
        expected = truth == index
        if expected.mean() >= CLASS_SHARE:
            found = labels == index
            ious[name] = float((expected & found).sum() / (expected | found).sum())
    return ious
