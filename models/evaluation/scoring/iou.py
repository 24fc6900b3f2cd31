"""The overlap scores in use for surgical video, each with its formula. They differ in which classes and frames count.

Below, for a frame: T_c, P_c are the pixels of class c in truth and prediction, IoU_c = |T_c & P_c| / |T_c | P_c|, G and P
the sets of foreground classes (all but 0) in truth and prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.models.evaluation.scoring.confusion_counts import ConfusionCounts
from cliprl.models.evaluation.scoring.ratio_metric import Array, RatioMetric, column_ratio, mean_of_ratios

FOREGROUND = np.s_[:, 1:]


@dataclass(frozen=True, slots=True)
class ScoreDefinition:
    """One way to make a score of counts: its name, its rule in a sentence, and its arithmetic."""

    title: str
    rule: str
    metric: Callable[[ConfusionCounts], RatioMetric]


def frame_iou(counts: ConfusionCounts) -> Array:
    """IoU of each frame and class, (N, K); NaN for a class in neither truth nor prediction."""
    return column_ratio(np.stack([counts.overlap, counts.union], axis=-1).astype(np.float64))


def challenge_2018_miou(counts: ConfusionCounts) -> RatioMetric:
    """EndoVis 2018 scene challenge: mean over G of IoU_c, then the mean over frames; frames with G empty are skipped.

    Source: the challenge's rules (Allan et al., 2018 Robotic Scene Segmentation Challenge, arXiv:2001.11190).
    """
    return _mean_of_frames(frame_iou(counts)[FOREGROUND], counts.truth[FOREGROUND] > 0)


def challenge_iou(counts: ConfusionCounts) -> RatioMetric:
    """Challenge IoU (types): mean over G of IoU_c, then the mean over images; an image with P empty and G not scores 0.

    An image with G empty has no class to average and is skipped, whatever P. The formula is that of the 2018 scene score;
    the two are kept apart because they name different tasks. Source: Gonzalez et al., ISINet, arXiv:2007.05533.
    """
    return challenge_2018_miou(counts)


def isi_iou(counts: ConfusionCounts) -> RatioMetric:
    """ISI IoU: mean over G | P of IoU_c, so that a false class scores 0, then the mean over images; G | P empty is skipped.

    Source: ISINet, arXiv:2007.05533.
    """
    return _mean_of_frames(frame_iou(counts)[FOREGROUND], counts.union[FOREGROUND] > 0)


def mc_iou(counts: ConfusionCounts) -> RatioMetric:
    """Mean class IoU: per class, the mean of IoU_c over the images with c in G | P; then the mean over classes.

    A class that occurs nowhere is left out. Source: ISINet, arXiv:2007.05533.
    """
    present = counts.union[FOREGROUND] > 0
    return mean_of_ratios(np.where(present, frame_iou(counts)[FOREGROUND], 0), present)


def dataset_miou(counts: ConfusionCounts) -> RatioMetric:
    """Dataset mIoU with background: per class sum |T_c & P_c| / sum |T_c | P_c| over all frames; then the mean over classes.

    A class in neither truth nor prediction of any frame is left out; a false class scores 0.
    """
    return mean_of_ratios(counts.overlap, counts.union)


def dataset_miou_foreground(counts: ConfusionCounts) -> RatioMetric:
    """Dataset mIoU without background: as `dataset_miou`, over classes 1..K-1."""
    return mean_of_ratios(counts.overlap[FOREGROUND], counts.union[FOREGROUND])


def dataset_mdice(counts: ConfusionCounts) -> RatioMetric:
    """Dataset mDice with background: per class 2 sum |T_c & P_c| / sum (|T_c| + |P_c|); then the mean over classes."""
    return mean_of_ratios(2 * counts.overlap, counts.truth + counts.predicted)


def dataset_mdice_foreground(counts: ConfusionCounts) -> RatioMetric:
    """Dataset mDice without background: as `dataset_mdice`, over classes 1..K-1."""
    return mean_of_ratios(2 * counts.overlap[FOREGROUND], (counts.truth + counts.predicted)[FOREGROUND])


def all_class_mean(counts: ConfusionCounts) -> RatioMetric:
    """The trap: mean over ALL classes of IoU_c, 1 for a class in neither mask, then the mean over images.

    With 5 of 12 classes present at 0.60 it says (5 x 0.60 + 7) / 12 = 0.8333.
    """
    iou = frame_iou(counts)
    return _mean_of_frames(np.where(np.isnan(iou), 1.0, iou), np.ones(iou.shape, bool))


def _mean_of_frames(values: Array, counted: NDArray[np.bool_]) -> RatioMetric:
    """The mean over frames of the mean over the counted columns (N, M); frames with none are skipped."""
    share = counted.sum(1)
    means = np.where(counted, values, 0).sum(1) / np.maximum(share, 1)
    return mean_of_ratios(means[:, None], (share > 0)[:, None])


DEFINITIONS: Mapping[str, ScoreDefinition] = {
    "endovis2018_challenge_miou": ScoreDefinition(
        "EndoVis 2018 scene challenge mIoU",
        "per frame, mean IoU over the foreground classes in the truth; frames without any skipped; mean over frames",
        challenge_2018_miou,
    ),
    "challenge_iou": ScoreDefinition(
        "Challenge IoU (types)", "mean over images of the mean IoU over the classes in the truth", challenge_iou
    ),
    "isi_iou": ScoreDefinition(
        "ISI IoU",
        "mean over images of the mean IoU over the classes in truth or prediction (a false class scores 0)",
        isi_iou,
    ),
    "mc_iou": ScoreDefinition(
        "mcIoU",
        "mean over classes of the mean IoU over the images where the class is in truth or prediction",
        mc_iou,
    ),
    "dataset_miou_with_background": ScoreDefinition(
        "dataset mIoU, with background",
        "per class, intersections and unions pooled over all pixels of all frames; mean over classes",
        dataset_miou,
    ),
    "dataset_miou_without_background": ScoreDefinition(
        "dataset mIoU, without background", "the same over the foreground classes", dataset_miou_foreground
    ),
    "dataset_mdice_with_background": ScoreDefinition(
        "dataset mDice, with background",
        "per class, 2 x intersection over the sum of areas, pooled over all pixels; mean over classes",
        dataset_mdice,
    ),
    "dataset_mdice_without_background": ScoreDefinition(
        "dataset mDice, without background", "the same over the foreground classes", dataset_mdice_foreground
    ),
    "all_class_mean_absent_is_1": ScoreDefinition(
        "all-class mean, absent = 1 (inflated: compare with nothing else)",
        "per image, mean IoU over all classes, background included, where a class in neither mask scores 1; mean over images",
        all_class_mean,
    ),
}


def per_class(counts: ConfusionCounts) -> dict[str, list[Any]]:
    """By class, K values each: pooled IoU and Dice, and the mean IoU over the frames whose truth has it (None: nowhere)."""
    present = counts.truth > 0
    image = mean_of_ratios(np.where(present, frame_iou(counts), 0), present)
    columns = {
        "dataset_iou": dataset_miou(counts).columns(),
        "dataset_dice": dataset_mdice(counts).columns(),
        "mean_frame_iou": image.columns(),
    }
    return {key: [None if np.isnan(v) else float(v) for v in values] for key, values in columns.items()} | {
        "truth_pixels": counts.truth.sum(0).tolist(),
        "found_pixels": counts.predicted.sum(0).tolist(),
    }
