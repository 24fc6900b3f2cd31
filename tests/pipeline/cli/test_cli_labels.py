"""The options of `cliprl-stream` for labels: exported frames, names, polygons."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.registry import open_dataset
from cliprl.pipeline.cli import main as cli

DEMO = "demo:?seconds=0.1&size=96x64"


def call(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cliprl-stream", *arguments, "--quiet", "--precision", "f32"])
        return run_app(cli.app, "cliprl-stream")


def test_labels_of_a_video_with_frames_can_be_trained_on(tmp_path: Path) -> None:
    outputs = ("x.coco.json", "x.cvat.xml", "x.labelstudio.json", "x.yolo/", "x.dataset/", "v.mkv")
    words = [word for name in outputs for word in ("-o", f"{tmp_path}/{name}")]
    for _ in range(2):  # an unchanged earlier output of the same input is replaced
        assert call(DEMO, *words, "--export-frames", "--names", "clip", "--polygons", "--opacity", "1") == 0
    assert len(list((tmp_path / "x.frames").glob("*.png"))) == 2
    data = open_dataset(f"folder:{tmp_path}/x.dataset")
    assert {data.image_file(i).name for i in range(2)} == {p.name for p in (tmp_path / "x.frames").glob("*.png")}
    (tmp_path / "raw").mkdir()
    assert call(DEMO, "-o", f"{tmp_path}/raw/x.frames/") == 0
    for path, raw in zip(
        sorted((tmp_path / "x.frames").glob("*.png")), sorted((tmp_path / "raw").rglob("*.png")), strict=True
    ):
        assert np.array_equal(cv2.imread(str(path)), cv2.imread(str(raw))), "no overlay"
    for line in ("coco:x.coco.json", "labelstudio:x.labelstudio.json", "yolo:x.yolo"):
        kind, _, name = line.partition(":")
        found = open_dataset(f"{kind}:{tmp_path}/{name}")
        assert np.array_equal(found[1].image, data[1].image)


def test_exported_image_files_are_named_alike_in_the_labels(tmp_path: Path) -> None:
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        cv2.imwrite(str(tmp_path / part / "1.jpg"), np.full((64, 96, 3), 99, np.uint8))
    assert call(f"{tmp_path}/*/1.jpg", "-o", f"{tmp_path}/x.coco.json", "--export-frames") == 0
    names = [image["file_name"] for image in json.loads((tmp_path / "x.coco.json").read_text())["images"]]
    assert sorted(names) == sorted(path.name for path in (tmp_path / "x.frames").glob("*.png"))
    assert len(set(names)) == 2


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--export-frames", "-o", "v.mp4"), "no output is one: give -o NAME with one of .coco.json, .cvat.xml"),
        (("-o", "x.yolo/", "--record", "rec"), "'x.yolo/' holds the frames themselves"),
        (("-o", "x.coco.json", "--export-frames", "--record", "rec"), "'x.frames/' holds the frames themselves"),
        (("-o", "x.coco.json", "--export-frames", "-o", "x.frames/"), "the same output"),
        (("-o", "x.coco.json", "--names", "number"), "number"),
        (("--polygons",), "--polygons is for label files, and no output is one: give -o NAME with one of .coco.json"),
        (("--polygons", "-o", "x.jsonl", "-o", "m/"), "--polygons is for label files"),
        (("--names", "clip", "-o", "null:"), "--names clip is for label files"),
        (("--encoders", "2", "-o", "null:", "-o", "m/"), "--encoders 2 is for a video file"),
        (("--encoders", "2", "-o", "v.mp4", "--record", "rec"), "--encoders 2 is for a video file"),
        (("--record-what", "raw"), "are for recordings: give --record FOLDER"),
        (("--segment-minutes", "2", "-o", "v.mp4"), "are for recordings: give --record FOLDER"),
    ],
)
def test_misuse(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(DEMO, *words) == 2
    assert reason in " ".join(capfd.readouterr().err.split())
    assert not list(tmp_path.iterdir())
