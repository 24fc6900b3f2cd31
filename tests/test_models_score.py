"""Scores against cases worked by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT, Image, Sample
from cliprl.models.score import ConfusionCounts, score

CLASSES = (
    ClassSpec("ground", (0, 0, 0), "background"),
    ClassSpec("shaft", (1, 1, 1), "instrument"),
    ClassSpec("jaw", (2, 2, 2), "instrument"),
    ClassSpec("liver", (3, 3, 3), "tissue"),
)


def counted(truth: list[int], found: list[int]) -> ConfusionCounts:
    counts = ConfusionCounts(CLASSES)
    counts.add(np.array([truth], np.uint8), np.array([found], np.uint8))
    return counts


def test_instrument_iou_is_of_the_union_of_the_instrument_classes() -> None:
    counts = counted([0, 0, 1, 1, 2, 2], [0, 1, 2, 1, 2, 0])
    assert counts.instrument_iou() == pytest.approx(3 / 5)
    assert counts.instrument_share() == pytest.approx(4 / 6)


def test_class_iou_and_its_mean_over_classes_in_the_truth() -> None:
    counts = counted([0, 0, 1, 1, 2, 2], [0, 1, 2, 1, 2, 0])
    np.testing.assert_allclose(counts.class_iou(), [1 / 3, 1 / 3, 1 / 3, np.nan])
    assert counts.dataset_miou() == pytest.approx(1 / 3)


def test_partial_labels_count_for_the_instrument_alone_and_unknown_ones_for_nothing() -> None:
    counts = counted([INSTRUMENT, INSTRUMENT, NOT_INSTRUMENT, NOT_INSTRUMENT, IGNORE], [1, 3, 2, 0, 1])
    assert counts.instrument_iou() == pytest.approx(1 / 3)
    assert counts.counts.sum() == 0


def test_no_instrument_on_either_side_is_no_score() -> None:
    assert np.isnan(counted([0, 3], [3, 0]).instrument_iou())


def test_frames_are_pooled_and_a_new_sequence_is_told() -> None:
    class Two:
        name = "two"

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Sample:
            labels = np.full((8, 8), index == 0, np.uint8)
            return Sample(np.zeros((8, 8, 3), np.uint8), labels, "ab"[index == 2])

    firsts: list[bool] = []

    def shaft(image: Image, first: bool) -> NDArray[np.float32]:
        firsts.append(first)
        assert image.shape == (16, 20, 3)
        return np.eye(4, dtype=np.float32)[1][:, None, None].repeat(4, 1).repeat(5, 2)

    assert score(shaft, Two(), CLASSES, (16, 20)).instrument_iou() == pytest.approx(1 / 3)
    assert firsts == [True, False, True]
