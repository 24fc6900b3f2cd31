"""The shipped bundle on real frames: it scores what its manifest says, and that is well above the fixed rule's floors."""

from __future__ import annotations

from pathlib import Path

import pytest

from cliprl.engines import open_bundle
from cliprl.models.data.label_mapping import map_to_instrument, with_partial_labels
from cliprl.models.data.registry import open_dataset
from cliprl.models.data.sample import INSTRUMENT, NOT_INSTRUMENT
from cliprl.models.data.sets.vocalfolds import UNSURE, VocalFolds
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.manifest_scores import count_pixels, false_alarm_share
from cliprl.models.evaluation.scoring.confusion_counts import ConfusionCounts
from cliprl.models.evaluation.scoring.iou import dataset_miou_foreground
from cliprl.models.training.run_datasets import TestDataset
from cliprl.pipeline.synthetic import SCENE_CLASSES

# Instrument IoU of a fixed rule on grey pixels.
FLOORS = {"OP1": 0.40, "OP3": 0.44, "D1": 0.60, "D2": 0.48}
MARGIN = 0.10
MOST_FALSE_ALARMS = 0.01


@pytest.fixture(scope="module")
def predictor() -> ImageSegmenter:
    return ImageSegmenter("small", precision="f32")


def counted(predictor: ImageSegmenter, line: str, every: int = 1) -> ConfusionCounts:
    """Pixels of what the refined result finds in a set, as instrument or not."""
    data = open_dataset(line)
    test = TestDataset(line, data, map_to_instrument(data.classes, predictor.classes, ()), union=True)
    return count_pixels(predictor, test, every, lambda: None)


def test_the_manifest_tells_how_the_bundle_was_made() -> None:
    manifest = open_bundle("small").manifest
    assert tuple(c.name for c in manifest.classes) == tuple(c.name for c in SCENE_CLASSES)
    assert any(
        "CC BY 4.0" in source["licence"] and "Laves" in source["attribution"] for source in manifest.training["data"]
    )
    assert all("definition" in entry and {"base", "refined"} <= entry.keys() for entry in manifest.scores.values())


@pytest.mark.parametrize("name", ["OP1", "OP3"])
def test_single_frames_score_what_the_manifest_says(predictor: ImageSegmenter, data_dir: Path, name: str) -> None:
    counts = counted(predictor, f"endovis2015:{data_dir / 'endovis2015'}?sequences={name}")
    found = dataset_miou_foreground(counts).value()
    assert found >= FLOORS[name] + MARGIN
    scores = open_bundle("small").manifest.scores
    (expected,) = [entry["refined"]["pooled"] for title, entry in scores.items() if title.split(" (")[0].endswith(name)]
    assert found == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("name", ["D1", "D2"])
def test_videos_score_well_above_the_floor(predictor: ImageSegmenter, data_dir: Path, name: str) -> None:
    counts = counted(predictor, f"endovis2015:{data_dir / 'endovis2015'}?sequences={name}", 40)
    assert dataset_miou_foreground(counts).value() >= FLOORS[name] + MARGIN


def test_hardly_an_instrument_is_seen_where_there_is_none(predictor: ImageSegmenter, data_dir: Path) -> None:
    counts = counted(predictor, f"empty:{data_dir / 'clips' / 'sinus_1080p30.mp4'}?every=20")
    assert false_alarm_share(counts).value() <= MOST_FALSE_ALARMS


def test_the_real_larynx_set_is_read(data_dir: Path) -> None:
    dataset = with_partial_labels(VocalFolds(data_dir / "vocalfolds"), SCENE_CLASSES, UNSURE)
    assert len(dataset) == 378
    sample = dataset[0]
    assert sample.image.shape == (512, 512, 3)
    assert {INSTRUMENT, NOT_INSTRUMENT} <= set(sample.labels.ravel().tolist())
