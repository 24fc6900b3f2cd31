"""Scores the tracking of a data set's clips, with the masks of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cliprl.engines import UsageError
from cliprl.models.data.image_mask_dataset import LabelledDataset, instance_ids
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.scoring.markdown import markdown_table
from cliprl.models.evaluation.tracking.observations import NetworkMasks
from cliprl.models.evaluation.tracking.sequence_score import SequenceScore
from cliprl.pipeline.tracking.groups import ClassGroups
from cliprl.pipeline.tracking.id_map import ids_at
from cliprl.pipeline.tracking.tracker import InstrumentTracker

_COLUMNS = ("HOTA", "DetA", "AssA", "IDF1", "IDSW", "J&F", "returns", "returns_right", "doubled")
# Scores are computed on every second row and column.
_STEP = 2


def check_has_ids(data: LabelledDataset, indices: Sequence[int]) -> None:
    """Raise UsageError if no clip of the data set numbers its instruments."""
    clips = {data.clip(index): index for index in indices}
    if all(instance_ids(data, index) is None for index in clips.values()):
        raise UsageError(
            f"{data.name} does not number its instruments here: --ids scores D1 and D2 of endovis2015, and rendered scenes"
        )


def score_tracking(
    data: LabelledDataset, indices: Sequence[int], segmenter: ImageSegmenter
) -> dict[str, Mapping[str, float]]:
    """Track the clips that number their instruments; return the scores of each: see `SequenceScore.result`."""
    scores: dict[str, SequenceScore] = {}
    observe, tracker = NetworkMasks(segmenter), InstrumentTracker(ClassGroups.of(segmenter.classes))
    for index in indices:
        truth = instance_ids(data, index)
        if truth is None:
            continue
        if (clip := data.clip(index)) not in scores:
            observe, tracker = NetworkMasks(segmenter), InstrumentTracker(ClassGroups.of(segmenter.classes))
            scores[clip] = SequenceScore()
        seen = observe(data[index].image, truth)
        seen.segmentation.instances = tracker.update(seen)
        found = ids_at(seen.segmentation, *truth.shape)
        scores[clip].add(truth[::_STEP, ::_STEP], np.ascontiguousarray(found[::_STEP, ::_STEP]))
    return {clip: score.result() for clip, score in scores.items()}


def tracking_table(tracking: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the scores of the clips as a Markdown table."""
    rows = [[clip, *(f"{row[name]:.3g}" for name in _COLUMNS)] for clip, row in tracking.items()]
    return markdown_table(["clip", *(name.replace("_", " ") for name in _COLUMNS)], rows).rstrip("\n")
