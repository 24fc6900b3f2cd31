"""The masks of a frame, one for each class that it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.labels.frame_labels import frame_labels


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """The pixels of one class: mask bool (H, W) of the displayed frame, never empty; score is its mean probability, 0..1."""

    class_id: int
    mask: NDArray[np.bool_]
    score: float


def regions(frame: Frame, segmentation: Segmentation, classes: Mapping[int, ClassSpec]) -> list[Region]:
    """Return the regions of those `classes` (by class id) that the frame shows."""
    labels = frame_labels(frame, segmentation)
    found = []
    for i in np.unique(segmentation.labels).tolist():
        if i in classes and (mask := labels == i).any():
            found.append(Region(i, mask, score(segmentation, i)))
    return found


def score(segmentation: Segmentation, class_id: int) -> float:
    """Return the mean probability of a class over the cells where it won."""
    cells = segmentation.probabilities[class_id][segmentation.labels == class_id]
    return round(float(cells.mean()), 4) if len(cells) else 0.0


def labelled_classes(classes: tuple[ClassSpec, ...]) -> dict[int, ClassSpec]:
    """Return the classes that are annotated, by class id: all but the background."""
    return {i: spec for i, spec in enumerate(classes) if spec.kind != "background"}
