"""The doubt of a frame: its statistics, and that a scattered, uncertain mask is doubted more than a solid one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.segment import doubt
from cliprl.pipeline.segment.doubt import MASK_STATISTICS, doubt_of, frame_doubt, mask_statistics

CLASSES = (ClassSpec("tissue", (0, 0, 0), "background"), ClassSpec("rod", (0, 255, 0), "instrument"))
RESULT = Path(__file__).resolve().parents[3] / "models" / "results" / "doubt.json"


def segmentation_of(chance: NDArray[np.float64]) -> Segmentation:
    """A segmentation of 12x16 cells by the probability of the instrument."""
    probabilities = np.stack([1 - chance, chance]).astype(np.float32)
    view = full_viewport(96, 128, 48, 64)
    return Segmentation(probabilities.argmax(0).astype(np.uint8), probabilities, view, 0.9, 0)


def solid() -> NDArray[np.float64]:
    chance = np.full((12, 16), 0.01)
    chance[3:9, 4:12] = 0.99
    return chance


def test_the_statistics_of_a_rectangle() -> None:
    found = dict(zip(MASK_STATISTICS, mask_statistics(segmentation_of(solid()), CLASSES), strict=True))
    assert found["area"] == pytest.approx(48 / 192)
    assert found["outline"] == pytest.approx(28 / 192)
    assert found["outline for area"] == pytest.approx(28 / 48)
    assert found["largest"] == pytest.approx(0.99)
    assert found["undecided"] == 0
    assert found["entropy"] == pytest.approx(-0.99 * np.log(0.99) - 0.01 * np.log(0.01), abs=1e-4)


def test_mask_of_scattered_cells_is_doubted_more_than_solid_one() -> None:
    scattered = np.full((12, 16), 0.3)
    scattered[::5, ::7] = 0.55
    low, high = (frame_doubt(segmentation_of(chance), CLASSES) for chance in (solid(), scattered))
    assert low is not None
    assert high is not None
    assert 0 <= low < 0.5 < high <= 1


def test_an_empty_mask_and_classes_without_instruments_have_defined_results() -> None:
    assert np.isfinite(mask_statistics(segmentation_of(np.zeros((12, 16))), CLASSES)).all()
    assert frame_doubt(segmentation_of(solid()), CLASSES[:1] * 2) is None
    assert doubt_of(np.full(7, 1e9)) in (pytest.approx(0, abs=1e-9), pytest.approx(1, abs=1e-9))


def test_the_coefficients_are_those_of_the_committed_result() -> None:
    result = json.loads(RESULT.read_text())
    assert result["statistics"] == list(MASK_STATISTICS)
    found = {"means": doubt.DOUBT_MEANS, "deviations": doubt.DOUBT_DEVIATIONS, "weights": doubt.DOUBT_WEIGHTS}
    assert found == {key: tuple(result[key]) for key in found}
    assert result["intercept"] == doubt.DOUBT_INTERCEPT
