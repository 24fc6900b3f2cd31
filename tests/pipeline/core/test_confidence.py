"""The confidence of a mask: statistics, doubt, distance, calibration, marks, and the file of a bundle."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.engines import BundleError, ClassSpec, ConfidenceSpec, DistanceSpec, LogisticSpec, open_bundle
from cliprl.engines.bundle.confidence import read_confidence
from cliprl.pipeline.cli.run_options import MARK_FRAMES, status_line
from cliprl.pipeline.core import confidence
from cliprl.pipeline.core.confidence import (
    CELL_INPUTS,
    COLOR_STATISTICS,
    FRAME_STATISTICS,
    ConfidenceModel,
    cell_inputs,
    color_statistics,
    frame_statistics,
    mean_probabilities,
)
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.segment.prompts import with_prompts
from cliprl.pipeline.segment.segmenter import cell_colors
from cliprl.pipeline.sinks.shapes.regions import score

CLASSES = (
    ClassSpec("tissue", (0, 0, 0), "background"),
    ClassSpec("rod", (0, 255, 0), "instrument"),
    ClassSpec("tip", (0, 0, 255), "instrument"),
)
INSTRUMENT = np.array([False, True, True])
Chances = NDArray[np.float64]


def spec(unsure: float = 0.5, unfamiliar: float = 1e9, shift: float = 0.0) -> ConfidenceSpec:
    """Doubt that grows with the undecided share, the plain logit plus `shift` as calibration, distance from an empty frame."""
    count = len(FRAME_STATISTICS) + len(CLASSES) + len(COLOR_STATISTICS)
    doubt = tuple(40.0 * (name == "undecided") for name in FRAME_STATISTICS)
    calibration = (1.0, *[0.0] * (len(CELL_INPUTS) - 1 + len(FRAME_STATISTICS)))
    whitening = tuple(tuple(map(float, row)) for row in np.eye(count))
    return ConfidenceSpec(
        FRAME_STATISTICS,
        CELL_INPUTS,
        COLOR_STATISTICS,
        LogisticSpec(calibration, shift),
        LogisticSpec(doubt, -4.0),
        DistanceSpec(((0.0,) * count, (2.0,) * count), whitening),
        unsure,
        unfamiliar,
    )


def segmentation_of(chance: Chances, fitted: ConfidenceSpec | None = None) -> Segmentation:
    """A segmentation of 12x16 cells by the probability of the rod; a twentieth of the rest is the tip's."""
    probabilities = np.stack([0.95 * (1 - chance), chance, 0.05 * (1 - chance)]).astype(np.float32)
    labels = probabilities.argmax(0).astype(np.uint8)
    model = ConfidenceModel(fitted, INSTRUMENT) if fitted else None
    return Segmentation(labels, probabilities, full_viewport(96, 128, 48, 64), 0.9, 0, model=model)


def solid() -> Chances:
    chance = np.full((12, 16), 0.01)
    chance[3:9, 4:12] = 0.99
    return chance


def scattered() -> Chances:
    chance = np.full((12, 16), 0.3)
    chance[::5, ::7] = 0.55
    return chance


def test_the_statistics_of_a_rectangle() -> None:
    chance = np.where(solid() > 0.5, 0.99, 0.01)
    p = np.stack([1 - chance, chance]).astype(np.float32)
    inside = np.ones((12, 16), bool)
    values = frame_statistics(p, p.argmax(0).astype(np.uint8), inside, np.array([False, True]))
    found = dict(zip(FRAME_STATISTICS, values, strict=True))
    assert found["area"] == pytest.approx(48 / 192)
    assert found["outline"] == pytest.approx(28 / 192)
    assert found["outline for area"] == pytest.approx(28 / 48)
    assert [found["largest"], found["confidence"]] == pytest.approx([0.99, 0.99])
    assert found["undecided"] == 0
    assert found["entropy"] == pytest.approx(-0.99 * np.log(0.99) - 0.01 * np.log(0.01), abs=1e-4)
    nothing = frame_statistics(p, p.argmax(0).astype(np.uint8), ~inside, np.array([False, True]))
    assert np.isfinite(nothing).all()


def test_finer_grid_gives_the_statistics_of_the_fitted_one() -> None:
    chance = np.where(solid() > 0.5, 0.99, 0.01)
    found = []
    for scale in (1, 2):
        fine = np.kron(chance, np.ones((scale, scale)))
        p = np.stack([1 - fine, fine]).astype(np.float32)
        labels, instrument = p.argmax(0).astype(np.uint8), np.array([False, True])
        values = frame_statistics(p, labels, np.ones(fine.shape, bool), instrument, scale)
        depth = cell_inputs(p, labels == 1, instrument, scale)[:, CELL_INPUTS.index("depth")]
        found.append((values, depth.max()))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    assert found[0][1] == pytest.approx(found[1][1], abs=0.2)


def test_mask_of_scattered_cells_is_doubted_and_marked() -> None:
    low, high = (segmentation_of(chance, spec()) for chance in (solid(), scattered()))
    assert low.reliability
    assert high.reliability
    assert low.reliability.doubt < 0.5 < high.reliability.doubt
    assert (low.mark, high.mark) == ("", "unsure")
    assert segmentation_of(solid(), spec(unfamiliar=0.0)).mark == "unfamiliar view"
    assert segmentation_of(scattered()).reliability is None
    empty = segmentation_of(np.full((12, 16), 0.3), spec()).reliability
    assert empty is not None
    assert empty.doubt > 0.5
    assert not empty.unsure  # nothing is painted
    again: Segmentation = pickle.loads(pickle.dumps(high))
    assert again.mark == "unsure"


def test_colors_that_no_set_has_are_far() -> None:
    count = len(FRAME_STATISTICS) + len(CLASSES)
    whitening = np.diag([*[0.0] * count, *[1.0] * len(COLOR_STATISTICS)])
    fitted, distances = spec(), []
    for colors in (np.full((12, 16, 3), 128, np.uint8), np.full((12, 16, 3), (0, 255, 0), np.uint8)):
        gray = color_statistics(np.full((12, 16, 3), 128, np.uint8), np.ones((12, 16), bool))
        means = ((*[0.0] * count, *gray), (5.0,) * len(whitening))
        near = DistanceSpec(means, tuple(map(tuple, whitening.tolist())))
        seen = segmentation_of(solid(), replace(fitted, familiarity=near, unfamiliar=0.5))
        seen.colors = colors
        assert seen.reliability
        distances.append((round(seen.reliability.distance, 6), seen.mark))
    assert distances[0] == (0.0, "")
    assert distances[1][0] > 1
    assert distances[1][1] == "unfamiliar view"
    seen = segmentation_of(solid(), replace(fitted, familiarity=near))
    assert seen.reliability
    assert seen.reliability.distance == 0


def test_colors_are_those_at_the_middle_of_cells_in_view() -> None:
    image = np.zeros((8, 12, 3), np.uint8)
    image[2::4, 2::4] = (200, 50, 50)
    colors = cell_colors(image, (2, 3))
    assert colors.shape == (2, 3, 3)
    assert (colors == (200, 50, 50)).all()
    inside = np.array([[True, False, False], [False, False, True]])
    colors[~inside] = 255
    found = dict(zip(COLOR_STATISTICS, color_statistics(colors, inside), strict=True))
    assert found["red mean"] == pytest.approx(200 / 255)
    assert found["red deviation"] == pytest.approx(0, abs=1e-6)
    assert found["share of red 0.5"] == pytest.approx(2 / 3, abs=1e-2)
    assert np.isfinite(color_statistics(colors, ~inside & False)).all()


@pytest.mark.parametrize("count", [1, 2, 3, 10, 997, 4096])
def test_quantiles_are_those_of_numpy(count: int) -> None:
    levels = np.random.default_rng(count).integers(0, 256, count)
    values = (levels / np.float32(255)).astype(np.float32)
    for shares in (confidence.RED_QUANTILES, confidence.LIGHT_QUANTILES, (0.0, 1.0)):
        np.testing.assert_array_equal(confidence.quantiles(values, shares), np.quantile(values, shares))


def test_a_confidence_without_colors_names_the_field_and_the_remedy(tmp_path: Path) -> None:
    present = json.loads(spec().to_text())
    path = tmp_path / "confidence.json"
    path.write_text(json.dumps({key: value for key, value in present.items() if key != "colors"}))
    with pytest.raises(BundleError, match=r"confidence\.json: colors: [^\n]*; fit it again"):
        read_confidence(path, len(CLASSES))


@pytest.mark.parametrize("shift", [-2.0, 0.0, 2.0])
def test_calibration_shifts_instruments_and_keeps_sums_and_labels(shift: float) -> None:
    plain, fitted = segmentation_of(scattered()), segmentation_of(scattered(), spec(shift=shift))
    called = INSTRUMENT[fitted.labels]
    before, after = plain.probabilities, fitted.calibrated()
    assert np.allclose(after.sum(axis=0), 1, atol=1e-5)
    assert np.array_equal(after[:, ~called], before[:, ~called])
    chance = before[INSTRUMENT].sum(0)[called]
    wanted = 1 / (1 + np.exp(-np.log(chance / (1 - chance)) - shift))
    assert np.allclose(after[INSTRUMENT].sum(0)[called], wanted, atol=1e-5)
    assert np.array_equal(fitted.labels, plain.labels)
    sign = np.sign(shift)
    assert np.sign(round(score(fitted, 1) - score(plain, 1), 3)) == sign
    assert plain.calibrated_confidence == plain.confidence


def test_calibrated_probabilities_are_kept_but_not_carried_to_other_labels() -> None:
    fitted = segmentation_of(scattered(), spec(shift=2.0))
    assert fitted.calibrated() is fitted.calibrated()
    other = replace(fitted, labels=np.zeros_like(fitted.labels))
    assert not np.array_equal(other.calibrated(), fitted.calibrated())


def test_statistics_of_a_frame_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = list[Any]()

    def count(*values: Any) -> Any:
        computed.append(values)
        return frame_statistics(*values)

    monkeypatch.setattr(confidence, "frame_statistics", count)
    fitted = segmentation_of(scattered(), spec())
    assert fitted.reliability
    assert fitted.calibrated_confidence
    assert len(computed) == 1
    other = replace(fitted, labels=np.zeros_like(fitted.labels))
    assert other.calibrated_confidence
    assert len(computed) == 2


def test_mean_probabilities_are_those_of_cells_in_view() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), (12, 16)).transpose(2, 0, 1).astype(np.float32)
    inside = np.arange(12 * 16).reshape(12, 16) % 3 == 0
    assert mean_probabilities(p, inside) == pytest.approx(p[:, inside].mean(axis=1), abs=1e-6)
    assert not mean_probabilities(p, np.zeros_like(inside)).any()


def test_the_status_line_bears_the_mark() -> None:
    frame: Any = SimpleNamespace(index=0, durations={})
    sure, unsure = segmentation_of(solid(), spec()), segmentation_of(scattered(), spec())
    line = status_line("net", 1)
    assert line(frame, sure) == "cliprl net · 0 steps · 0 ms · research use only"
    assert line(frame, unsure) == "cliprl net · unsure · 0 steps · 0 ms · research use only"
    sparse, marks = status_line("net"), []
    for frame.index in range(2 * MARK_FRAMES):
        marks.append("unsure" in (sparse(frame, sure if frame.index >= MARK_FRAMES else unsure) or ""))
    assert marks == [True] * MARK_FRAMES + [False] * MARK_FRAMES


def test_the_shipped_bundle_is_calibrated_for_its_classes_alone() -> None:
    bundle = open_bundle("small")
    model = ConfidenceModel.of(bundle)
    assert model is not None
    assert model.instrument.sum() == sum(one.kind == "instrument" for one in bundle.manifest.mask_classes)
    assert ConfidenceModel.of(with_prompts(bundle, ["grasper"])) is None
    other = replace(model.spec, statistics=("area",))
    with pytest.raises(BundleError, match="fit it again with python -m"):
        ConfidenceModel.of(replace(bundle, confidence=other))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"unsure": "high"}, "unsure: Input should be a valid number"),
        ({"unsure": float("nan")}, "not finite"),
        ({"doubt": {"weights": [1.0], "intercept": 0.0}}, "is not for 3 classes"),
        ({"familiarity": None}, "familiarity: Input should be"),
    ],
)
def test_a_garbled_confidence_is_one_line(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = tmp_path / "confidence.json"
    path.write_text(spec().to_text())
    assert read_confidence(path, len(CLASSES)) == spec()
    path.write_text(json.dumps(json.loads(spec().to_text()) | change))
    with pytest.raises(BundleError, match=reason) as raised:
        read_confidence(path, len(CLASSES))
    assert "\n" not in str(raised.value)
