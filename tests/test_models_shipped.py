"""The shipped bundle on real frames: it scores what its manifest says, and that is well above the fixed rule's floors."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliprl.engines import open_bundle
from cliprl.models.data.larynx import Larynx
from cliprl.models.data.sample import INSTRUMENT, NOT_INSTRUMENT, Dataset
from cliprl.models.data.unseen import EmptyVideo, RigidImages, RoboticVideo
from cliprl.models.score import ConfusionCounts, bundle_predictor, score
from cliprl.pipeline.scene import SCENE_CLASSES

# Instrument IoU of a fixed rule on grey pixels.
FLOORS = {"OP1": 0.40, "OP3": 0.44, "D1": 0.60, "D2": 0.48}
MARGIN = 0.10
MOST_FALSE_ALARMS = 0.01


def scored(dataset: Dataset) -> ConfusionCounts:
    bundle = open_bundle("small")
    manifest = bundle.manifest
    return score(bundle_predictor(bundle, manifest.steps), dataset, manifest.classes, (manifest.height, manifest.width))


def test_the_manifest_tells_how_the_bundle_was_made() -> None:
    manifest = open_bundle("small").manifest
    assert tuple(c.name for c in manifest.classes) == tuple(c.name for c in SCENE_CLASSES)
    assert any(
        "CC BY 4.0" in source["licence"] and "Laves" in source["attribution"] for source in manifest.training["data"]
    )
    assert all("definition" in entry and {"base", "refined"} <= entry.keys() for entry in manifest.scores.values())


@pytest.mark.parametrize("name", ["OP1", "OP3"])
def test_single_frames_score_what_the_manifest_says(data_dir: Path, name: str) -> None:
    found = scored(RigidImages(data_dir / "endovis2015" / "rigid" / name)).instrument_iou()
    assert found >= FLOORS[name] + MARGIN
    entries = open_bundle("small").manifest.scores.items()
    (stated,) = (entry["refined"][name] for title, entry in entries if "EndoVis 2015" in title)
    assert found == pytest.approx(stated, abs=0.01)


@pytest.mark.parametrize("name", ["D1", "D2"])
def test_videos_score_well_above_the_floor(data_dir: Path, name: str) -> None:
    found = scored(RoboticVideo(data_dir / "endovis2015" / "robotic" / name, every=40)).instrument_iou()
    assert found >= FLOORS[name] + MARGIN


def test_hardly_an_instrument_is_seen_where_there_is_none(data_dir: Path) -> None:
    share = scored(EmptyVideo(data_dir / "clips" / "sinus_1080p30.mp4", every=20)).instrument_share()
    assert share <= MOST_FALSE_ALARMS


def test_the_real_larynx_set_is_read(data_dir: Path) -> None:
    dataset = Larynx(data_dir / "vocalfolds")
    assert len(dataset) == 378
    sample = dataset[0]
    assert sample.image.shape == (512, 512, 3)
    assert {INSTRUMENT, NOT_INSTRUMENT} <= set(sample.labels.ravel().tolist())
