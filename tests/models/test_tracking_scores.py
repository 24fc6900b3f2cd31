"""HOTA, IDF1, id switches and J&F on maps of ids, with values that are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.models.evaluation.tracking.association import FrameOverlap, hota, id_switches, idf1
from cliprl.models.evaluation.tracking.sequence_score import SequenceScore

IdMap = NDArray[np.uint16]


def boxes(*places: tuple[int, int]) -> IdMap:
    """A map of ids with a square of 10x10 for each (id, column)."""
    ids = np.zeros((40, 60), np.uint16)
    for number, column in places:
        ids[10:20, column : column + 10] = number
    return ids


def score(pairs: list[tuple[IdMap, IdMap]]) -> dict[str, float]:
    scored = SequenceScore()
    for truth, predicted in pairs:
        scored.add(truth, predicted)
    return dict(scored.result())


def test_equal_maps_score_one_whatever_their_numbers() -> None:
    result = score([(boxes((1, 5), (2, 30)), boxes((7, 5), (3, 30)))] * 10)
    assert {result[name] for name in ("HOTA", "DetA", "AssA", "IDF1", "J", "F", "J&F")} == {1.0}
    assert (result["IDSW"], result["doubled"], result["returns"]) == (0, 0, 0)


def test_ids_that_are_exchanged_in_the_middle() -> None:
    truth, other = boxes((1, 5), (2, 30)), boxes((2, 5), (1, 30))
    result = score([(truth, truth)] * 5 + [(truth, other)] * 5)
    assert result["IDSW"] == 2
    assert result["IDF1"] == pytest.approx(0.5)
    assert result["DetA"] == pytest.approx(1.0)
    # Each id agrees with each instrument in 5 of 15 frames that hold one of them.
    assert result["AssA"] == pytest.approx(1 / 3)
    assert result["HOTA"] == pytest.approx(np.sqrt(1 / 3))


def test_an_id_for_two_instruments_and_two_ids_for_one() -> None:
    joined = score([(boxes((1, 5), (2, 15)), boxes((1, 5), (1, 15)))] * 4)
    assert joined["IDF1"] == pytest.approx(2 * 4 / 12)
    halves = boxes((1, 5), (2, 10))
    divided = score([(boxes((1, 5), (1, 10)), halves)] * 7)
    assert divided["doubled"] == 7


def test_returns_count_with_the_id_that_was_there_before() -> None:
    truth, none = boxes((1, 5)), boxes()
    right = score([(truth, boxes((4, 5)))] * 3 + [(none, none)] * 9 + [(truth, boxes((4, 5)))] * 3)
    wrong = score([(truth, boxes((4, 5)))] * 3 + [(none, none)] * 9 + [(truth, boxes((6, 5)))] * 3)
    assert (right["returns"], right["returns_right"]) == (1, 1)
    assert (wrong["returns"], wrong["returns_right"]) == (1, 0)
    assert wrong["IDSW"] == 1


def test_nothing_found_and_nothing_there() -> None:
    assert score([(boxes(), boxes())] * 3)["HOTA"] == 1
    assert score([(boxes((1, 5)), boxes())] * 3)["HOTA"] == 0


def test_scores_agree_with_trackeval() -> None:
    trackeval = pytest.importorskip("trackeval")
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(30):
        truth, predicted = (np.sort(rng.permutation(4)[: rng.integers(0, 4)]) for _ in range(2))
        frames.append(FrameOverlap(truth, predicted, rng.uniform(0, 1, (len(truth), len(predicted)))))
    data = {
        "num_gt_ids": 4,
        "num_tracker_ids": 4,
        "num_timesteps": len(frames),
        "gt_ids": [frame.truth for frame in frames],
        "tracker_ids": [frame.predicted for frame in frames],
        "similarity_scores": [frame.iou for frame in frames],
        "num_gt_dets": sum(len(frame.truth) for frame in frames),
        "num_tracker_dets": sum(len(frame.predicted) for frame in frames),
    }
    expected = trackeval.metrics.HOTA().eval_sequence(data)
    found = hota(frames, 4, 4)
    assert {name: pytest.approx(float(np.mean(expected[name]))) for name in found} == found
    identity = trackeval.metrics.Identity({"PRINT_CONFIG": False}).eval_sequence(data)
    assert idf1(frames, 4, 4) == pytest.approx(identity["IDF1"])
    clear = trackeval.metrics.CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
    assert id_switches(frames, 4) == clear["IDSW"]
