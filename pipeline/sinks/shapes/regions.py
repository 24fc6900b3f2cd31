"""The masks of a frame, one for each class that it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.labels.frame_labels import frame_ids, frame_labels


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """The pixels of one class, or of one class of one instrument if the stream is tracked.

    mask: bool (H, W) of the displayed frame, never empty. score: the mean probability of the class, 0..1. instance: the id of
    the instrument, 0 for none.
    """

    class_id: int
    mask: NDArray[np.bool_]
    score: float
    instance: int = 0


def regions(frame: Frame, segmentation: Segmentation, classes: Mapping[int, ClassSpec]) -> list[Region]:
    """Return the regions of those `classes` (by class id) that the frame shows, the largest first.

    So the polygon of a large region, which may leave its pixels a little, does not cover a small one.
    """
    labels = frame_labels(frame, segmentation)
    found = []
    for i in np.unique(segmentation.labels).tolist():
        if i in classes and (mask := labels == i).any():
            found.append(Region(i, mask, score(segmentation, i)))
    if segmentation.instances is not None:
        found = _by_instance(found, frame_ids(frame, segmentation))
    return sorted(found, key=lambda region: -np.count_nonzero(region.mask))


def _by_instance(found: list[Region], ids: NDArray[np.uint16]) -> list[Region]:
    """Divide the regions of classes among the instruments; ids uint16 (H, W)."""
    return [
        replace(region, mask=region.mask & (ids == instance), instance=instance)
        for region in found
        for instance in np.unique(ids[region.mask]).tolist()
    ]


def score(segmentation: Segmentation, class_id: int) -> float:
    """Return the mean calibrated probability of a class over the cells where it won."""
    cells = segmentation.calibrated()[class_id][segmentation.labels == class_id]
    return round(float(cells.mean()), 4) if len(cells) else 0.0


def labelled_classes(classes: tuple[ClassSpec, ...]) -> dict[int, ClassSpec]:
    """Return the classes that are annotated, by class id: all but the background."""
    return {i: spec for i, spec in enumerate(classes) if spec.kind != "background"}
