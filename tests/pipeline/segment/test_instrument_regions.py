"""What counts as instrument is decided on the sum of all instruments, for connected regions of cells."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from typer.testing import CliRunner

from cliprl.engines import BundleError, ClassSpec, Manifest, RegionSpec, open_bundle, seal_bundle
from cliprl.models.studies.confidence import region_study
from cliprl.models.studies.confidence.region_study import TRIED, choose_rule
from cliprl.pipeline import Segmentation
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.overlay.upsample import labels_at_frame
from cliprl.pipeline.segment.decision import InstrumentRegions, segmentation_of

KINDS = ("background", "instrument", "instrument", "tissue", "prompted")
CLASSES = tuple(ClassSpec(f"class {i}", (i, 0, 0), kind) for i, kind in enumerate(KINDS))
MANIFEST = Manifest("regions", CLASSES, 64, 80, 4, 0, regions=RegionSpec(0.4, 0.02))
RULE = InstrumentRegions.of(MANIFEST)
VIEW = full_viewport(64, 80, 64, 80)
BACKGROUND = (0.8, 0.1, 0.05, 0.05, 0.0)
# No part is the likeliest class, but both together are above the threshold.
SPLIT = (0.5, 0.22, 0.28, 0.0, 0.0)


Cells = tuple[tuple[slice, slice], tuple[float, ...]]


def frame_of(*cells: Cells, rule: InstrumentRegions | None = RULE) -> Segmentation:
    """A frame of 16 x 20 cells of background, but for the places given."""
    chances = np.empty((len(KINDS), 16, 20))
    chances[:] = np.array(BACKGROUND)[:, None, None]
    for place, values in cells:
        chances[(slice(None), *place)] = np.array(values)[:, None, None]
    return segmentation_of(np.log(chances + 1e-6).astype(np.float32), VIEW, 0, 0.0, rule)


def test_parts_are_counted_together() -> None:
    place = np.s_[2:8, 3:9]
    assert not frame_of((place, SPLIT), rule=None).labels.any()
    found = frame_of((place, SPLIT))
    assert np.unique(found.labels[place]).tolist() == [2]
    assert np.count_nonzero(found.labels) == 36
    # In the frame the outline lies between the middles of the cells on both sides of it.
    assert 25 * 1600 < np.count_nonzero(labels_at_frame(found, 640, 800)) < 49 * 1600


@pytest.mark.parametrize("kept", ["instrument", "tissue"])
def test_bundles_of_one_group_have_no_rule(kept: str) -> None:
    classes = tuple(spec for spec in CLASSES if spec.kind == kept)
    assert InstrumentRegions.of(replace(MANIFEST, classes=classes)) is None


def test_small_regions_are_left_out() -> None:
    """0.02 of 320 cells are 6.4: of seven cells that touch at corners too, none is lost; of six, all."""
    sure = (0.1, 0.9, 0.0, 0.0, 0.0)
    seven, six = ((np.s_[1:3, 1:4], sure), (np.s_[3:4, 4:5], sure)), ((np.s_[10:12, 10:13], sure),)
    assert np.count_nonzero(frame_of(*six, rule=None).labels) == 6
    found = frame_of(*seven, *six)
    assert np.count_nonzero(found.labels) == np.count_nonzero(found.labels[:5]) == 7
    assert found.probabilities[1:3, 10:12, 10:13].max() == 0


def test_prompted_classes_compete_as_before() -> None:
    place, other = np.s_[2:8, 3:9], np.s_[10:15, 3:9]
    found = frame_of((place, (0.2, 0.3, 0.1, 0.0, 0.4)), (other, (0.3, 0.05, 0.05, 0.2, 0.4)))
    assert np.unique(found.labels[place]).tolist() == np.unique(found.labels[other]).tolist() == [4]


def test_only_the_field_of_view_is_searched() -> None:
    cropped = replace(VIEW, placed=(0, 0, 40, 64))
    logits = np.log(np.full((5, 16, 20), 0.01, np.float32))
    logits[1, :, 9:] = 0
    found = segmentation_of(logits, cropped, 0, 0.0, RULE)
    assert found.labels[:, 9].all()
    assert not found.labels[:, 10:].any()


@given(arrays(np.float32, (5, 8, 10), elements=st.floats(-12, 12, width=32)))
def test_probabilities_stay_probabilities(logits: NDArray[np.float32]) -> None:
    view = full_viewport(32, 40, 32, 40)
    plain, found = (segmentation_of(logits, view, 0, 0.0, rule) for rule in (None, RULE))
    np.testing.assert_allclose(found.probabilities.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(found.labels, found.probabilities.argmax(axis=0))
    # Shares within the instruments, and within the others, do not change.
    for one, other in ((1, 2), (0, 3)):
        before, after = plain.probabilities, found.probabilities
        ratio = before[one] * after[other] - before[other] * after[one]
        np.testing.assert_allclose(ratio, 0, atol=1e-5)
    ours, rest = plain.probabilities[1:3].sum(axis=0), plain.probabilities[[0, 3]].sum(axis=0)
    assert not np.isin(found.labels, (1, 2))[ours * 0.6 < rest * 0.4 - 1e-4].any()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return shutil.copytree(open_bundle("small").path, tmp_path / "bundle")


def test_a_manifest_keeps_its_rule(copy: Path) -> None:
    opened = open_bundle(copy)
    sealed = seal_bundle(opened.path, replace(opened.manifest, regions=RegionSpec(0.35, 0.01)), opened.embeddings)
    assert open_bundle(sealed.path).manifest.regions == RegionSpec(0.35, 0.01)
    values = json.loads((copy / "manifest.json").read_text()) | {"regions": {"threshold": 1.5, "share": 0}}
    with pytest.raises(BundleError, match=r"regions\.threshold: .*less than 1, not '1.5'"):
        Manifest.from_json(values)


def test_the_study_chooses_on_its_scores() -> None:
    def entry(*scores: float, key: str = "iou") -> list[dict[str, float]]:
        filled = [*scores, *[0.0 if key == "iou" else 1.0] * len(TRIED)][: len(TRIED) + 1]
        return [{key: score, "false": score} for score in filled]

    # The second rule's mean is within .25 of the third's, and its regions are smaller; the first is too far.
    found = {"a": entry(80, 81, 82.9, 83), "b": entry(70, 70, 71, 71)}
    assert choose_rule(found, TRIED) == TRIED[1]
    falls = {"a": entry(80, 99, 90, 83), "b": entry(70, 67, 69, 71)}
    assert choose_rule(falls, TRIED) == TRIED[1]
    false = found | {"c": entry(0.1, 0.1, 0.21, 0.1, key="false")}
    assert choose_rule(false, TRIED) == TRIED[2]
    assert choose_rule({"a": entry(90, *[80.0] * len(TRIED))}, TRIED) is None
    assert choose_rule({"c": entry(0.1, key="false")}, TRIED) is None


def test_the_study_runs_on_files(tmp_path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_study, "TRIED", TRIED[:2])
    rules = tmp_path / "protocol.toml"
    rules.write_text(
        "".join(
            f'[[{use}]]\nname = "{use}"\ndata = "rendered:seeds={seed}-{seed}&frames=1"\nseverities = [3]\n'
            for use, seed in (("choosing", 7), ("reporting", 8))
        )
    )
    command = ["--bundle", str(copy), "--protocol", str(rules), "--out", str(tmp_path / "out"), "--write", "-q"]
    ran = CliRunner().invoke(region_study.app, command)
    result = json.loads((tmp_path / "out" / "region-study.json").read_text())
    assert ran.exit_code == 0 if result["rule"] else "nothing is sealed" in str(ran.exception)
    assert [len(one) for one in result["chosen"].values()] == [3] * 2
    assert [len(one) for one in result["reported"].values()] == [2 if result["rule"] else 1] * 2
    sealed = open_bundle(copy).manifest.regions
    assert (sealed and asdict(sealed)) == result["rule"]
