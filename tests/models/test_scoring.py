"""Each score against cases worked by hand, and against a count of the pixels one by one."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, CliprlError
from cliprl.models.data.sample import IGNORE
from cliprl.models.evaluation.scoring import iou
from cliprl.models.evaluation.scoring.bootstrap import interval
from cliprl.models.evaluation.scoring.boundary import SurfaceDice
from cliprl.models.evaluation.scoring.calibration import Calibration
from cliprl.models.evaluation.scoring.confusion_counts import ConfusionCounts
from cliprl.models.evaluation.scoring.evaluator import Evaluator
from cliprl.models.evaluation.scoring.ratio_metric import mean_of_ratios
from cliprl.models.evaluation.scoring.temporal import TemporalConsistency

Labels = NDArray[np.uint8]
K = 4


def row(*labels: int) -> Labels:
    return np.array([labels], np.uint8)


def counted(*frames: tuple[Labels, Labels], classes: int = K) -> ConfusionCounts:
    counts = ConfusionCounts(classes)
    for truth, found in frames:
        counts.add(truth, found, "a")
    return counts


def value(name: str, counts: ConfusionCounts) -> float:
    return iou.DEFINITIONS[name].metric(counts).value()


# One frame, eight pixels. Class 1: overlap 2, union 3. Class 2: overlap 1, union 2. Class 3: a false class, one pixel.
# Background: truth 3, found 3, overlap 2, union 4.
MIXED = (row(1, 1, 1, 2, 2, 0, 0, 0), row(1, 1, 0, 2, 3, 0, 0, 2))
# Class 2 in this frame: truth 2, found 2 (one of them where the truth is background), overlap 1, union 3.
MIXED_IOU = {0: 2 / 4, 1: 2 / 3, 2: 1 / 3, 3: 0.0}


def test_the_mixed_frame_is_what_its_comment_says() -> None:
    assert dict(enumerate(iou.frame_iou(counted(MIXED))[0])) == pytest.approx(MIXED_IOU)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("endovis2018_challenge_miou", (2 / 3 + 1 / 3) / 2),  # the truth's foreground classes: 1 and 2
        ("challenge_iou", (2 / 3 + 1 / 3) / 2),
        ("isi_iou", (2 / 3 + 1 / 3 + 0) / 3),  # and the false class 3
        ("mc_iou", (2 / 3 + 1 / 3 + 0) / 3),
        ("dataset_miou_with_background", (2 / 4 + 2 / 3 + 1 / 3 + 0) / 4),
        ("dataset_miou_without_background", (2 / 3 + 1 / 3 + 0) / 3),
        ("dataset_mdice_with_background", (4 / 6 + 4 / 5 + 2 / 4 + 0) / 4),
        ("dataset_mdice_without_background", (4 / 5 + 2 / 4 + 0) / 3),
        ("all_class_mean_absent_is_1", (2 / 4 + 2 / 3 + 1 / 3 + 0) / 4),
    ],
)
def test_one_frame_with_a_false_class(name: str, expected: float) -> None:
    assert value(name, counted(MIXED)) == pytest.approx(expected)


EMPTY = row(0, 0, 0, 0)
TOOL = row(1, 1, 0, 0)
NAN = math.nan


@pytest.mark.parametrize(
    ("name", "both_empty", "empty_prediction", "empty_truth"),
    [
        ("endovis2018_challenge_miou", NAN, 0.0, NAN),
        ("challenge_iou", NAN, 0.0, NAN),
        ("isi_iou", NAN, 0.0, 0.0),
        ("mc_iou", NAN, 0.0, 0.0),
        ("dataset_miou_with_background", 1.0, (2 / 4 + 0) / 2, (2 / 4 + 0) / 2),
        ("dataset_miou_without_background", NAN, 0.0, 0.0),
        ("dataset_mdice_with_background", 1.0, (4 / 6 + 0) / 2, (4 / 6 + 0) / 2),
        ("dataset_mdice_without_background", NAN, 0.0, 0.0),
        ("all_class_mean_absent_is_1", 1.0, (2 / 4 + 0 + 1 + 1) / 4, (2 / 4 + 0 + 1 + 1) / 4),
    ],
)
def test_empty_masks(name: str, both_empty: float, empty_prediction: float, empty_truth: float) -> None:
    cases = [((EMPTY, EMPTY), both_empty), ((TOOL, EMPTY), empty_prediction), ((EMPTY, TOOL), empty_truth)]
    for frame, expected in cases:
        assert value(name, counted(frame)) == pytest.approx(expected, nan_ok=True)
        # A frame that is not defined is skipped: beside a perfect one it leaves 1, otherwise it pulls the mean down.
    skipped = value(name, counted((EMPTY, EMPTY), (TOOL, TOOL)))
    assert skipped == pytest.approx(1.0)


def test_frames_are_averaged_or_pooled_as_the_definition_says() -> None:
    half = (row(1, 1, 1, 1), row(1, 1, 0, 0))  # class 1: IoU 2/4
    small = (row(1, 2, 0, 0), row(1, 0, 0, 0))  # class 1: 1/1; class 2: 0/1
    both = counted(half, small)
    assert value("endovis2018_challenge_miou", both) == pytest.approx((0.5 + 0.5) / 2)
    assert value("mc_iou", both) == pytest.approx(((0.5 + 1) / 2 + 0) / 2)
    assert value("dataset_miou_without_background", both) == pytest.approx((3 / 5 + 0) / 2)
    assert value("dataset_mdice_without_background", both) == pytest.approx((6 / 8 + 0) / 2)


def test_the_worked_example_of_the_inflated_score() -> None:
    """Five of twelve classes present, each at IoU 0.60: (5 x 0.60 + 7) / 12 = 0.8333."""
    truth, found = np.zeros((5, 8), np.uint8), np.zeros((5, 8), np.uint8)
    for c in range(5):
        # 8 pixels a class; the last two of each are called the next class: overlap 6, union 10.
        truth[c], found[c], found[c, 6:] = c, c, (c + 1) % 5
    counts = counted((truth, found), classes=12)
    assert iou.frame_iou(counts)[0, :5] == pytest.approx([0.6] * 5)
    assert value("all_class_mean_absent_is_1", counts) == pytest.approx(0.8333, abs=5e-5)
    assert value("dataset_miou_with_background", counts) == pytest.approx(0.6)
    assert value("endovis2018_challenge_miou", counts) == pytest.approx(0.6)


def test_pixels_of_unknown_truth_count_nowhere() -> None:
    assert value("isi_iou", counted((row(1, 1, 255, 255), row(1, 1, 2, 3)))) == 1.0


def test_a_label_that_is_no_class_is_named() -> None:
    with pytest.raises(CliprlError, match=r"prediction of a frame of 'a' holds label 7: classes are 0\.\.3"):
        counted((row(1, 1), row(1, 7)))
    with pytest.raises(CliprlError, match="2x1 pixels can't be scored against a prediction of 3x1"):
        counted((row(1, 1), row(1, 1, 1)))


LABELS = arrays(np.uint8, (3, 5, 6), elements=st.integers(0, K - 1))


@given(LABELS, LABELS)
def test_pooled_scores_are_those_of_a_count_pixel_by_pixel(truth: Labels, found: Labels) -> None:
    counts = counted(*zip(truth, found, strict=True))
    scores = []
    for c in range(K):
        pairs = [(t == c, f == c) for t, f in zip(truth.ravel().tolist(), found.ravel().tolist(), strict=True)]
        if union := sum(t or f for t, f in pairs):
            scores.append(sum(t and f for t, f in pairs) / union)
    assert value("dataset_miou_with_background", counts) == pytest.approx(sum(scores) / len(scores))


@given(LABELS, LABELS, st.permutations(range(3)))
def test_bounds_order_and_round_trip(truth: Labels, found: Labels, order: list[int]) -> None:
    counts = counted(*zip(truth, found, strict=True))
    shuffled = counted(*zip(truth[order], found[order], strict=True))
    read_again = ConfusionCounts.from_json(json.loads(json.dumps(counts.to_json())))
    for name in iou.DEFINITIONS:
        score = value(name, counts)
        assert math.isnan(score) or 0 <= score <= 1
        assert value(name, shuffled) == pytest.approx(score, nan_ok=True)
        assert value(name, read_again) == pytest.approx(score, nan_ok=True)


@given(LABELS)
def test_a_perfect_prediction_scores_one(truth: Labels) -> None:
    counts = counted(*((t, t) for t in truth))
    for name in iou.DEFINITIONS:
        assert value(name, counts) == pytest.approx(1.0) or not truth.any()


@given(LABELS, LABELS)
def test_only_the_inflated_score_gains_from_classes_that_never_occur(truth: Labels, found: Labels) -> None:
    few, many = (counted(*zip(truth, found, strict=True), classes=k) for k in (K, 3 * K))
    for name in iou.DEFINITIONS:
        same = value(name, many) == pytest.approx(value(name, few), nan_ok=True)
        assert same or name == "all_class_mean_absent_is_1"


def test_runs_can_be_joined() -> None:
    first, second = counted(MIXED), counted((TOOL, EMPTY))
    first.extend(second)
    assert value("isi_iou", first) == pytest.approx(value("isi_iou", counted(MIXED, (TOOL, EMPTY))))


# -- boundary ----------------------------------------------------------------------------------------------------------


def square(left: int, top: int = 10, side: int = 10) -> Labels:
    labels = np.zeros((40, 60), np.uint8)
    labels[top : top + side, left : left + side] = 1
    return labels


def nsd(truth: Labels, found: Labels, tolerance: float, classes: int = 2) -> float:
    score = SurfaceDice(classes, tolerance)
    score.add(truth, found, "a")
    return score.metric().value()


def test_a_square_moved_by_two_pixels() -> None:
    # 36 boundary pixels each, columns 10..19 and 12..21. At tolerance 2 all are near.
    assert nsd(square(10), square(12), 2) == 1.0
    # At 1: of the first's top and bottom rows all but the pixel in column 10 (2 x 9); of its left side none; of its right
    # side the two that touch the second's top and bottom rows. 20 of 36, and the same of the second.
    assert nsd(square(10), square(12), 1) == pytest.approx(20 / 36)


def test_distance_is_euclidean() -> None:
    one, other = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    one[1, 1] = other[4, 5] = 1  # 3 down, 4 right: 5 apart
    assert nsd(one, other, 5) == 1.0
    assert nsd(one, other, 4.9) == 0.0


def test_class_in_one_mask_scores_zero_and_absent_are_excluded() -> None:
    empty = np.zeros_like(square(10))
    assert nsd(square(10), empty, 50) == 0.0
    assert nsd(empty, square(10), 50) == 0.0
    assert math.isnan(nsd(empty, empty, 1))
    assert nsd(square(10), square(10), 1, classes=7) == 1.0


def test_edges_of_image_and_known_area_are_no_boundary() -> None:
    everywhere = np.ones((8, 8), np.uint8)
    assert math.isnan(nsd(everywhere, everywhere, 1))
    truth = np.full((8, 8), 255, np.uint8)
    truth[:, :4] = 1
    assert math.isnan(nsd(truth, everywhere, 1))


@settings(deadline=None, max_examples=30)
@given(arrays(np.uint8, (2, 12, 14), elements=st.integers(0, 1)), st.floats(0, 6))
def test_boundary_score_is_that_of_all_pairs(masks: Labels, tolerance: float) -> None:
    points = []
    for mask in masks:
        inner = {tuple(p) for p in np.argwhere(mask)}
        inside = [(y, x) for y in range(12) for x in range(14)]
        outer = set(inside) - inner
        points.append([(y, x) for y, x in inner if {(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)} & outer])
    total = len(points[0]) + len(points[1])
    near = sum(
        any(math.dist(p, q) <= tolerance + 1e-6 for q in there) for here, there in (points, points[::-1]) for p in here
    )
    expected = near / total if total else math.nan
    gaps = [abs(math.dist(p, q) - tolerance) for p in points[0] for q in points[1]]
    if not gaps or min(gaps) > 1e-3:  # a tolerance on the very distance is decided by rounding
        assert nsd(masks[0], masks[1], tolerance) == pytest.approx(expected, nan_ok=True)


# -- calibration -------------------------------------------------------------------------------------------------------


def test_calibration_error_by_hand() -> None:
    score = Calibration()
    # Bin of 0.9: two of four right, gap 0.4. Bin of 0.55: both right, gap 0.45. (4 x 0.4 + 2 x 0.45) / 6.
    score.add(np.array([0.9] * 4), np.array([True, True, False, False]), "a")
    score.add(np.array([0.55] * 2), np.array([True, True]), "b")
    assert score.metric().value() == pytest.approx((4 * 0.4 + 2 * 0.45) / 6)


def test_certain_and_right_is_calibrated_certain_and_wrong_is_not() -> None:
    for right, expected in ((True, 0.0), (False, 1.0)):
        score = Calibration()
        score.add(np.ones(5), np.full(5, right), "a")
        assert score.metric().value() == expected


# -- time --------------------------------------------------------------------------------------------------------------


def textured(seed: int) -> Labels:
    noise = np.random.default_rng(seed).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def test_mask_that_moves_with_the_image_is_steady_warped() -> None:
    image, mask = textured(0), np.zeros((120, 160), np.uint8)
    mask[40:80, 50:100] = 1
    score = TemporalConsistency(2)
    for shift in (0, 6):
        score.add(np.roll(image, shift, 1), np.roll(mask, shift, 1), "a", "a")
    assert score.iou().value() == pytest.approx(44 / 56)  # 50 columns, moved by 6
    assert score.warped_dice().value() > 0.985


def test_flicker_in_a_still_picture_is_seen_by_both() -> None:
    image, mask = textured(1), np.zeros((120, 160), np.uint8)
    mask[40:80, 50:100] = 1
    smaller = mask.copy()
    smaller[:, 75:] = 0
    score = TemporalConsistency(2)
    for labels in (mask, smaller):
        score.add(image, labels, "a", "a")
    assert score.iou().value() == pytest.approx(0.5)
    assert score.warped_dice().value() == pytest.approx(2 / 3, abs=0.02)


def test_frames_of_different_clips_are_not_compared() -> None:
    score = TemporalConsistency(2)
    for clip in ("one", "another"):
        score.add(textured(2), np.ones((120, 160), np.uint8), clip, "a")
    assert math.isnan(score.iou().value())


# -- intervals ---------------------------------------------------------------------------------------------------------


def test_interval_over_sequences() -> None:
    # Means of 12 values around 0.5, standard deviation 0.1: an interval of about 1.96 x 0.1 / sqrt(12) either way,
    # however many frames each sequence has.
    means = np.random.default_rng(0).normal(0, 1, 12)
    means = 0.5 + 0.1 * (means - means.mean()) / means.std()
    names = np.repeat(list("abcdefghijkl"), 50).tolist()
    score = mean_of_ratios(np.repeat(means, 50)[:, None], np.ones((600, 1)))
    found = interval(score, names)
    assert found == pytest.approx((0.5 - 0.0566, 0.5 + 0.0566), abs=0.008)
    assert interval(score, names) == found
    assert interval(score, names, seed=1) != found


def test_one_sequence_has_no_interval() -> None:
    assert interval(mean_of_ratios(np.ones((9, 1)), np.ones((9, 1))), ["a"] * 9) is None


def test_interval_of_equal_sequences_is_a_point() -> None:
    ones = np.ones((4, 1))
    assert interval(mean_of_ratios(ones * 0.7, ones), ["a", "a", "b", "c"]) == pytest.approx((0.7, 0.7))


# -- the book ----------------------------------------------------------------------------------------------------------

CLASSES = (
    ClassSpec("background", (0, 0, 0), "background"),
    ClassSpec("shaft", (0, 255, 0), "instrument"),
    ClassSpec("tip", (0, 255, 255), "instrument"),
)


def test_a_perfect_run_scores_one_everywhere_and_is_json() -> None:
    book = Evaluator(CLASSES)
    labels = np.zeros((120, 160), np.uint8)
    labels[20:60, 20:60], labels[60:90, 20:60] = 1, 2
    for index in range(6):
        name = "a" if index < 3 else "b"
        book.add(labels, labels, name)
        book.add_motion(textured(3), labels, name, name)
        book.add_confidence(np.ones(9), np.ones(9, bool), name)
    result = json.loads(json.dumps(book.to_json(), allow_nan=False))
    assert result["frames"] == 6
    assert result["sequences"] == {"a": 3, "b": 3}
    for key, score in result["scores"].items():
        best = 0.0 if key in ("ece", "false_alarms") else 1.0
        assert score["value"] == pytest.approx(best), key
        assert score["interval"] == pytest.approx([best, best]), key
        assert score["sequences"] == pytest.approx({"a": best, "b": best}), key
    assert result["per_class"]["dataset_iou"] == [1, 1, 1]


def test_an_undefined_score_is_null() -> None:
    book = Evaluator(CLASSES)
    book.add(EMPTY, EMPTY, "a")
    result = json.loads(json.dumps(book.to_json(), allow_nan=False))
    assert result["scores"]["isi_iou"]["value"] is None
    assert result["scores"]["ece"]["value"] is None
    assert "flow_dice" not in result["scores"]


def test_false_alarms_are_counted_where_there_is_no_instrument() -> None:
    """A wrong part of an instrument is no false alarm; unknown pixels count nowhere."""
    evaluator = Evaluator(CLASSES)
    evaluator.add(row(1, 1, 0, 0, 0, 0, IGNORE, IGNORE), row(2, 0, 1, 0, 0, 0, 1, 0), "a")
    assert evaluator.false_area() == pytest.approx(1 / 6)
    evaluator.add(row(0, 0, 0, 0, 0, 0, 0, 0), row(2, 2, 0, 0, 0, 0, 0, 0), "b")
    assert evaluator.false_area() == pytest.approx(2 / 8)
    scores = evaluator.scores()
    assert scores["false_alarms"].metric.value() == pytest.approx(3 / 12)
    assert scores["instrument_iou"].metric.value() == pytest.approx(1 / 5)
    tissue = Evaluator([CLASSES[0], ClassSpec("liver", (255, 0, 0), "tissue")])
    tissue.add(EMPTY, EMPTY, "a")
    assert "false_alarms" not in tissue.scores()


def test_the_interval_is_that_of_scipy() -> None:
    """The percentile bootstrap over sequences of a ratio of sums, by scipy.stats.bootstrap."""
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    bottom = rng.integers(500, 1000, 24).astype(float)
    top = np.floor(bottom * rng.uniform(0.5, 0.9, 24))
    names = [f"sequence {n // 2}" for n in range(24)]
    found = interval(mean_of_ratios(top[:, None], bottom[:, None]), names)
    pairs = (top.reshape(12, 2).sum(1), bottom.reshape(12, 2).sum(1))

    def ratio(a: NDArray[np.float64], b: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        return np.asarray(a.sum(axis) / b.sum(axis))

    expected = stats.bootstrap(pairs, ratio, paired=True, method="percentile", n_resamples=4000, rng=1)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.006)


def test_the_surface_distance_is_that_of_scipy() -> None:
    """The share of both outlines within the tolerance, by scipy's exact Euclidean distance transform."""
    ndimage = pytest.importorskip("scipy.ndimage")
    rng = np.random.default_rng(1)
    truth, found = (ndimage.gaussian_filter(rng.standard_normal((60, 80)), 4) > 0.02 for _ in range(2))
    cross = ndimage.generate_binary_structure(2, 1)
    outlines = [mask & ~ndimage.binary_erosion(mask, cross, border_value=1) for mask in (truth, found)]
    first, second = outlines
    close = (ndimage.distance_transform_edt(~second)[first] <= 3).sum() + (
        ndimage.distance_transform_edt(~first)[second] <= 3
    ).sum()
    surface = SurfaceDice(2, 3.0)
    surface.add(truth.astype(np.uint8), found.astype(np.uint8), "a")
    assert surface.metric().value() == pytest.approx(close / (first.sum() + second.sum()))


def test_each_frame_is_told_how_it_went() -> None:
    book = Evaluator(CLASSES)
    assert [book.add(TOOL, found, "a") for found in (TOOL, EMPTY, row(1, 0, 0, 2))] == [1.0, 0.0, 0.25]
    assert book.add(EMPTY, EMPTY, "a") == 1.0


def test_a_frame_is_scored_without_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts of all frames are gathered once, at the end: at each frame it would take time by their number squared."""
    evaluator = Evaluator(CLASSES)
    monkeypatch.setattr(ConfusionCounts, "_column", lambda counts, which: pytest.fail("all frames were gathered"))
    for _ in range(2):
        evaluator.add(row(1, 1, 0, 0), row(1, 0, 1, 0), "a")
        assert evaluator.false_area() == pytest.approx(1 / 4)
