"""Everything that is written as JSON, against its published schema."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import numpy as np
import pytest

from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline.cli import main as cli
from cliprl.pipeline.cli.progress import summary_json
from cliprl.pipeline.core.frame import StatisticsRecorder
from cliprl.pipeline.schemas import NAMES, load_schema
from cliprl.pipeline.sources.images.image_list import image_files

SIZE = (64, 96)


def call(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cliprl-stream", *arguments])
        return run_app(cli.app, "cliprl-stream")


def check(name: str, value: Any) -> None:
    jsonschema.validate(value, load_schema(name), jsonschema.Draft202012Validator)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbered pictures with gaps, one of which can't be read."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in (1, 3, 5, 10):
        cv2.imwrite(str(folder / f"frame_{number}.png"), np.full((*SIZE, 3), 20 * number, np.uint8))
    (folder / "frame_2.png").write_bytes(b"junk")
    return folder


@pytest.fixture(scope="module")
def of_pictures(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(str(images / "frame_%d.png"), tmp_path_factory.mktemp("of_pictures"))


@pytest.fixture(scope="module", params=["file", "live"])
def of_video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    more = () if request.param == "file" else ("--record", str(tmp_path_factory.mktemp("rec")), "--record-what", "raw")
    return written("demo:?seconds=0.2&size=96x64", tmp_path_factory.mktemp("of_video"), *more)


def written(source: str, folder: Path, *more: str) -> Path:
    """All kinds of output of a run, and its summary."""
    outputs = [
        word for name in ("m/", "x.coco.json", "x.jsonl") for word in ("-o", f"{folder / name}{'/' * (name == 'm/')}")
    ]
    with (folder / "summary.json").open("w") as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", file)
        assert call(source, *outputs, "--json", "--quiet", *more) == 0
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_valid_and_is_printed(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    jsonschema.Draft202012Validator.check_schema(load_schema(name))
    assert call("--print-schema", name) == 0
    assert json.loads(capfd.readouterr().out) == load_schema(name)


def test_the_schemas_explain_share_box_and_file_name() -> None:
    described = {name: json.dumps(load_schema(name)) for name in NAMES}
    assert "share of the endoscope's view" in described["events"]
    for name in ("events", "coco"):
        assert "[left, top, width, height]" in described[name]
        assert '"file_name": {"' in described[name]


def test_an_unknown_schema_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    assert call("--print-schema", "boxes") == 2
    assert "no schema 'boxes': one of events, coco" in capfd.readouterr().err


def test_what_is_written_of_pictures_keeps_to_the_schemas(of_pictures: Path) -> None:
    keeps_to_schemas(of_pictures)


def test_what_is_written_of_a_video_keeps_to_the_schemas(of_video: Path) -> None:
    keeps_to_schemas(of_video)
    coco = json.loads((of_video / "x.coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == [
        f"frame_{i:06d}.png" for i in range(len(coco["images"]))
    ]
    assert {image["video"] for image in coco["images"]} == {"demo:?seconds=0.2&size=96x64"}
    assert {event["file_name"] for event in lines(of_video / "x.jsonl")[1:]} == {None}


def test_ids_are_in_the_outputs_of_a_tracked_run(tmp_path: Path) -> None:
    targets = [word for name in ("x.jsonl", "x.coco.json", "x.ids/") for word in ("-o", f"{tmp_path}/{name}")]
    assert call("demo:?seconds=0.3&size=320x256", *targets, "--ids", "--quiet") == 0
    events, coco = lines(tmp_path / "x.jsonl"), json.loads((tmp_path / "x.coco.json").read_text())
    for event in events:
        check("events", event)
    check("coco", coco)
    seen = [{found["id"] for found in event["instances"]} for event in events[1:]]
    assert seen[-1] & seen[0], "the demo shows instruments, and some are in all frames"
    assert {a["attributes"].get("instance_id", 0) for a in coco["annotations"]} == {0}.union(*seen)
    tracks = {a["attributes"]["track_id"] - a["attributes"].get("instance_id", 0) for a in coco["annotations"]}
    assert len(coco["categories"]) in tracks
    for event, ids in zip(events[1:], seen, strict=True):
        mask = cv2.imread(str(tmp_path / "x.ids" / event["mask_file_name"]), cv2.IMREAD_UNCHANGED)
        assert (mask.dtype, mask.shape) == (np.uint16, (256, 320))
        assert set(np.unique(mask).tolist()) == {0, *ids}


def test_ids_are_refused_where_nothing_is_tracked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("demo:?seconds=0.1", "-o", f"{tmp_path}/x.ids/") == 2
    assert "give --ids too" in capfd.readouterr().err
    assert call("demo:?seconds=0.1", "-o", f"{tmp_path}/x.jsonl", "--ids", "--device", "cuda") == 2
    assert "--ids works on the CPU" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("written", "frames"), [([8, 5], 8), ([0, 9], 9), ([], 12)])
def test_frames_of_a_summary_are_those_written(written: list[int], frames: int) -> None:
    """A live run displayed 12 frames, of which its outputs have lost some."""
    ran = StatisticsRecorder().summary(dropped=0, damaged=0, interrupted=False, notes=())
    summary = replace(ran, frames=12, seconds=4.0)
    facts = summary_json(summary, dict(zip("ab", written, strict=False)), live=True)
    assert (facts["frames"], facts["displayed"], facts["fps"]) == (frames, 12, frames / 4)
    file = summary_json(summary, {"a": 12, "b": 3}, live=False)
    assert (file["frames"], file["displayed"]) == (12, None)


def keeps_to_schemas(folder: Path) -> None:
    events, coco = lines(folder / "x.jsonl"), json.loads((folder / "x.coco.json").read_text())
    summary = json.loads((folder / "summary.json").read_text())
    for event in events:
        check("events", event)
    check("coco", coco)
    check("masks", json.loads((folder / "m" / "classes.json").read_text()))
    check("summary", summary)
    for one in (*events[1:], *coco["images"]):
        assert (one["mask_file_name"] is not None) == one["segmented"]
        assert one["mask_file_name"] is None or (folder / "m" / one["mask_file_name"]).exists()
    assert list(summary["written"].values()) == [len(coco["images"])] * 3
    assert summary["frames"] == len(coco["images"])
    assert len(events) - 1 == len(coco["images"])


def test_pictures_are_named_by_their_own_files(of_pictures: Path) -> None:
    names = ["frame_1.png", "frame_3.png", "frame_5.png", "frame_10.png"]
    coco = json.loads((of_pictures / "x.coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == names
    assert {image["video"] for image in coco["images"]} == {None}
    assert [event["file_name"] for event in lines(of_pictures / "x.jsonl")[1:]] == names
    masks = sorted(path.name for path in (of_pictures / "m").glob("*.png"))
    assert masks == sorted(names), "in whatever order, they match"
    manifest = json.loads((of_pictures / "m" / "classes.json").read_text())
    assert [(frame["mask_file_name"], frame["file_name"]) for frame in manifest["frames"]] == [(n, n) for n in names]
    assert json.loads((of_pictures / "summary.json").read_text())["frames"] == 4


@pytest.mark.parametrize(
    ("paths", "names", "stems"),
    [
        (["d/a.png", "d/b.jpg"], ["a.png", "b.jpg"], ["a", "b"]),
        (["d/a.png", "d/a.jpg"], ["a.png", "a.jpg"], ["a.png", "a.jpg"]),
        (["d/x/a.png", "d/y/a.png"], ["x/a.png", "y/a.png"], ["x_a.png", "y_a.png"]),
        (
            ["d/x_a.png", "d/x/a.png", "d/y/x_a.png"],
            ["x_a.png", "x/a.png", "y/x_a.png"],
            ["000000_x_a", "000001_a", "000002_x_a"],
        ),
        (["a.png"], ["a.png"], ["a"]),
        (  # with ".png" behind their names both would be longer than file systems allow
            [f"{'w' * 250}.png", f"{'w' * 250}.PNG"],
            [f"{'w' * 250}.png", f"{'w' * 250}.PNG"],
            [f"000000_{'w' * 200}", f"000001_{'w' * 200}"],
        ),
    ],
)
def test_names_lead_back_to_one_file_each(paths: list[str], names: list[str], stems: list[str]) -> None:
    found = image_files([Path(path) for path in paths])
    assert [file.name for file in found] == names
    assert [file.stem for file in found] == stems
