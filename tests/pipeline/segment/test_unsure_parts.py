"""Cells of an instrument whose part is unsure are labelled "instrument"; all outputs have it as one more class."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from cliprl.engines import Bundle, ClassSpec, Manifest, naming_parts, open_bundle, seal_bundle
from cliprl.engines.bundle.manifest import UNSURE_PART
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.registry import DatasetContext, open_dataset
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.studies.confidence import part_study
from cliprl.pipeline import Segmentation
from cliprl.pipeline.cli import main as cli
from cliprl.pipeline.core.viewport import full_viewport
from cliprl.pipeline.correction.corrector import displayed_logits
from cliprl.pipeline.overlay.upsample import labels_at_frame
from cliprl.pipeline.segment.decision import merge_unsure, segmentation_of
from cliprl.pipeline.sinks.shapes.regions import score
from cliprl.pipeline.tracking.groups import ClassGroups
from cliprl.pipeline.tracking.tracker import InstrumentTracker, TrackerInput

CLASSES = tuple(
    ClassSpec(name, (i, 0, 0), kind)
    for i, (name, kind) in enumerate(
        (("tissue", "background"), ("shaft", "instrument"), ("liver", "tissue"), ("jaws", "instrument"))
    )
)
MANIFEST = Manifest("parts", CLASSES, 64, 80, 4, 0, part_share=0.7)
# Probabilities of a sure shaft, of a cell that is shaft or jaws, of tissue that is nearly so, and of jaws on the line.
CELLS = ((0.1, 0.8, 0.02, 0.08), (0.05, 0.5, 0.0, 0.45), (0.4, 0.35, 0.0, 0.25), (0.1, 0.26, 0.0, 0.64))
SURE, MIXED, TISSUE, LINE = range(4)
UNION = len(CLASSES)


def frame_of(columns: NDArray[np.intp]) -> Segmentation:
    """A frame of 16 x 20 cells; `columns` (20,) says which of the `CELLS` a column has."""
    chances = np.array(CELLS).T[:, columns][:, None].repeat(16, axis=1)
    return segmentation_of(np.log(chances + 1e-6).astype(np.float32), full_viewport(64, 80, 64, 80), 0, 0.0)


@pytest.fixture
def found() -> Segmentation:
    return frame_of(np.arange(20) // 5)


def test_a_part_is_named_only_where_it_is_sure(found: Segmentation) -> None:
    before = found.labels.copy()
    merged = merge_unsure(found, MANIFEST.merged_parts, 0.7)
    assert merged.labels[0, ::5].tolist() == [1, UNION, 0, 3]
    assert merge_unsure(found, MANIFEST.merged_parts, 0.75).labels[0, ::5].tolist() == [1, UNION, 0, UNION]
    np.testing.assert_allclose(merged.probabilities.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(merged.probabilities.argmax(axis=0), merged.labels)
    np.testing.assert_array_equal(merged.likeliest.labels, before)
    np.testing.assert_array_equal(found.labels, before)
    # The score of the union is the probability that it is an instrument.
    assert score(merged, UNION) == pytest.approx(0.95, abs=1e-3)
    assert (labels_at_frame(merged, 64, 80)[:, 22:38] == UNION).all()


def test_a_frame_without_instruments_keeps_its_labels() -> None:
    merged = merge_unsure(frame_of(np.full(20, TISSUE)), MANIFEST.merged_parts, 0.9)
    assert not merged.labels.any()
    assert len(merged.probabilities) == UNION + 1


def test_corrections_and_ids_are_those_of_the_likeliest_parts(found: Segmentation) -> None:
    merged = merge_unsure(found, MANIFEST.merged_parts, 0.7)
    np.testing.assert_array_equal(displayed_logits(merged), displayed_logits(found))
    ids = []
    for one, classes in ((found, CLASSES), (merged, MANIFEST.mask_classes)):
        tracker = InstrumentTracker(ClassGroups.of(classes))
        for _ in range(4):
            instances = tracker.update(TrackerInput(one, None, None, is_cut=False))
        ids.append(instances.ids)
        assert [(item.id, item.cells) for item in instances.items] == [(1, 160), (2, 80)]
    np.testing.assert_array_equal(*ids)


@pytest.mark.parametrize(
    ("change", "merges"),
    [
        ({}, True),
        ({"part_share": None}, False),
        ({"classes": CLASSES[:3]}, False),  # one instrument has no parts
        ({"classes": (*CLASSES, ClassSpec(UNSURE_PART, (9, 9, 9), "instrument"))}, False),
        ({"classes": tuple(replace(spec, shown=False) for spec in CLASSES)}, True),
    ],
)
def test_which_bundles_have_the_class(change: dict[str, object], merges: bool) -> None:
    manifest: Manifest = replace(MANIFEST, **change)  # type: ignore[arg-type]
    added = manifest.mask_classes[len(manifest.classes) :]
    assert [spec.name for spec in added] == [UNSURE_PART] * merges
    assert manifest.merged_parts == ((1, 3) if merges else ())
    assert all(spec.shown == manifest.classes[1].shown for spec in added)
    assert Manifest.from_json(manifest.to_json()).part_share == manifest.part_share


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle, with a share that names some parts of the drawn instruments and leaves others."""
    folder = shutil.copytree(open_bundle("small").path, tmp_path_factory.mktemp("parts") / "small")
    opened = open_bundle(folder)
    return seal_bundle(folder, replace(opened.manifest, part_share=0.6), opened.embeddings)


def test_all_outputs_have_one_more_class(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = [f"{tmp_path}/{name}" for name in ("m/", "x.coco.json", "x.jsonl", "x.report.json")]
    words = ["cliprl-stream", "demo:?seconds=0.2&size=320x256", "--bundle", str(bundle.path), "--ids", "-q"]
    words += ["--precision", "f32", "--steps", "0"]
    monkeypatch.setattr(sys, "argv", [*words, *(word for output in outputs for word in ("-o", output))])
    assert run_app(cli.app, "cliprl-stream") == 0
    listed = json.loads((tmp_path / "m" / "classes.json").read_text())["classes"]
    assert (listed[-1]["id"], listed[-1]["name"], listed[-1]["kind"]) == (12, UNSURE_PART, "instrument")
    coco = json.loads((tmp_path / "x.coco.json").read_text())
    category = coco["categories"][-1]
    assert (category["name"], category["supercategory"], category["mask_value"]) == (UNSURE_PART, "instrument", 12)
    assert {one["supercategory"] for one in coco["categories"] if "instrument-" in one["name"]} == {"instrument"}
    scores = [one["score"] for one in coco["annotations"] if one["category_id"] == category["id"]]
    assert scores
    assert all(0 < one <= 1 for one in scores)
    events = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert any(UNSURE_PART in event.get("classes", ()) for event in events[1:])
    assert UNSURE_PART in [one["name"] for one in json.loads((tmp_path / "x.report.json").read_text())["classes"]]


def test_studies_and_naming_parts_keep_the_likeliest_part(bundle: Bundle) -> None:
    image = np.full((256, 320, 3), (150, 70, 60), np.uint8)
    image[100:140] = 90
    plain = ImageSegmenter(bundle, precision="f32", threads=1, steps=0)
    assert plain.classes == naming_parts(bundle.path).manifest.mask_classes == bundle.manifest.classes
    likeliest = plain.segment(image)
    assert likeliest.unmerged is None
    plain._parts, plain._part_share = bundle.manifest.merged_parts, 0.999  # as `Segmenter` has it
    merged = plain.segment(image)
    assert len(merged.probabilities) == len(plain.classes) + 1 == len(bundle.manifest.mask_classes)
    np.testing.assert_array_equal(merged.likeliest.labels, likeliest.labels)
    assert merged.reliability == likeliest.reliability


def test_the_smallest_share_right_on_every_set_is_chosen() -> None:
    def entry(use: str, *right: float | None) -> dict[str, object]:
        values = dict(zip(part_study.TRIED_SHARES, (0.2, *right), strict=False))
        shares = {f"{share:g}": {"named_right": values.get(share)} for share in part_study.TRIED_SHARES}
        return {"use": use, "shares": shares}

    sets = {"a": entry("chosen", 0.8, 0.95, 0.97), "b": entry("chosen", 0.7, 0.8, 0.9), "c": entry("reported")}
    assert part_study.choose_share(sets) == part_study.TRIED_SHARES[3]
    assert part_study.choose_share({"a": entry("chosen", 0.8, None)}) is None
    assert part_study.choose_share({"c": entry("reported", 1, 1)}) is None


def test_the_chosen_share_is_sealed(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, suffix in (("Raw", "raw"), ("Masks", "class")):
        (tmp_path / "set" / "rigid" / "OP1" / folder).mkdir(parents=True)
        image = np.full((64, 80), 160 * (folder == "Masks"), np.uint8)
        cv2.imwrite(str(tmp_path / "set" / "rigid" / "OP1" / folder / f"img_01_{suffix}.png"), image)
    protocol = tmp_path / "protocol.toml"
    protocol.write_text(
        "[[choosing]]\nname = 'a'\ndata = 'endovis2015:set?sequences=OP1'\n"
        "[[reporting]]\nname = 'b'\ndata = 'empty:none.mp4'\n"
    )
    copy = shutil.copytree(bundle.path, tmp_path / "bundle")
    command = ["--out", str(tmp_path / "out"), "--bundle", str(copy), "--protocol", str(protocol), "--write", "-q"]
    command += ["--set", f"data.root={tmp_path}"]
    data = open_dataset("endovis2015:set?sequences=OP1", "test", DatasetContext(tmp_path, "data.root"))
    counted = part_study.count_parts(open_bundle(copy), data, "endovis2015", 1, lambda *_: None)
    assert (counted[:, 0] == counted[0, 0]).all()
    assert (np.diff(counted[:, 1]) <= 0).all()  # the larger the share, the fewer pixels are named
    assert counted[0, 3] == 64 * 80  # all is instrument in the truth
    counts = np.array([[100, 100 - 10 * n, 50, 200] for n in range(len(part_study.TRIED_SHARES))])
    monkeypatch.setattr(part_study, "count_parts", lambda *_: counts)
    assert CliRunner().invoke(part_study.app, command).exit_code == 0
    share = part_study.TRIED_SHARES[5]  # 50 of 50 are right
    assert open_bundle(copy).manifest.part_share == share
    result = json.loads((tmp_path / "out" / part_study.PART_RESULT).read_text())
    assert (list(result["sets"]), result["part_share"]) == (["a"], share)
    assert result["sets"]["a"]["shares"]["0"] == {"named_right": 0.5, "not_named": 0.0, "instrument_iou": 0.5}
    monkeypatch.setattr(part_study, "choose_share", lambda found: None)
    assert "nothing is sealed" in str(CliRunner().invoke(part_study.app, command).exception)
    assert open_bundle(copy).manifest.part_share == share
