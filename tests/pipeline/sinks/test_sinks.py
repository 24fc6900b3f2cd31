"""Masks, annotations and events: what is written is what was seen, and a failure leaves what can be read."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av
import cv2
import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from limits import file_size_limit
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from sink_inputs import (
    CLASSES,
    HEIGHT,
    SCENE,
    WIDTH,
    Labels,
    grid,
    make_frame,
    read_png,
    segment,
    write_all,
    write_items,
)

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.core.interfaces import Sink
from cliprl.pipeline.core.segmentation import DamageEstimate
from cliprl.pipeline.overlay.upsample import labels_at_frame
from cliprl.pipeline.schemas import load_schema
from cliprl.pipeline.sinks import CocoSink, EventSink, MaskSink, NullSink, SinkGroup, VideoSink, open_sink
from cliprl.pipeline.sinks.labels.indexed_png import encode_png


@settings(max_examples=40, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 70), st.integers(1, 70)), elements=st.integers(0, 255)))
def test_png_holds_the_very_ids(tmp_path_factory: pytest.TempPathFactory, labels: Labels) -> None:
    path = tmp_path_factory.mktemp("png") / "mask.png"
    palette = [(i, 255 - i, i // 2) for i in range(256)]
    path.write_bytes(encode_png(labels, palette))
    indices, found = read_png(path)
    assert np.array_equal(indices, labels)
    rgb = np.array(palette, np.uint8)[labels]
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], rgb)
    assert found.shape == (256, 4)


def test_masks_in_the_size_of_the_frame(tmp_path: Path) -> None:
    items = write_all(open_sink(f"{tmp_path}/masks/", SCENE))
    names = ["000000_-500.png", "000001_3100.png", "000002_6700.png"]
    assert sorted(os.listdir(tmp_path / "masks")) == [*names, "classes.json"]
    for name, (frame, segmentation) in zip(names, items, strict=True):
        indices, _ = read_png(tmp_path / "masks" / name)
        expected = labels_at_frame(segmentation, frame.height, frame.width)
        assert np.array_equal(indices, expected)
        colors = np.array([c.color for c in CLASSES], np.uint8)[expected]
        assert np.array_equal(cv2.imread(str(tmp_path / "masks" / name))[..., ::-1], colors)
    written = json.loads((tmp_path / "masks" / "classes.json").read_text())
    assert [(c["id"], c["name"], tuple(c["color"])) for c in written["classes"]] == [
        (i, c.name, c.color) for i, c in enumerate(CLASSES)
    ]
    assert written["stream"]["time_base"] == "1/90000"


def test_a_frame_without_segmentation_has_no_mask(tmp_path: Path) -> None:
    with MaskSink(tmp_path / "masks", SCENE) as sink:
        sink.write(make_frame(0), None)
        sink.write(make_frame(1), segment(grid(1)))
    assert sorted(os.listdir(tmp_path / "masks")) == ["000001_3100.png", "classes.json"]
    assert "1 frames were not segmented" in sink.notes[0]


def test_masks_replace_those_of_an_earlier_run_at_the_end(tmp_path: Path) -> None:
    write_all(MaskSink(tmp_path / "masks", SCENE), 3)
    sink = MaskSink(tmp_path / "masks", SCENE)
    sink.write(make_frame(7), segment(grid(7)))
    assert len(os.listdir(tmp_path / "masks")) == 4
    sink.close()
    assert sorted(os.listdir(tmp_path / "masks")) == ["000007_24700.png", "classes.json"]
    assert os.listdir(tmp_path) == ["masks"]
    assert "held 4 files of an earlier run" in sink.notes[0]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        open_sink(tmp_path, SCENE)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_coco_says_what_the_masks_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.coco.json"
    items = write_all(open_sink(path, SCENE))
    coco = COCO(str(path))
    assert [(c["id"], c["name"]) for c in coco.loadCats(coco.getCatIds())] == [
        (i, c.name) for i, c in enumerate(CLASSES) if i
    ]
    for frame, segmentation in items:
        (image,) = coco.loadImgs([frame.index])
        assert (image["height"], image["width"], image["pts"]) == (HEIGHT, WIDTH, frame.pts)
        assert image["file_name"] == f"frame_{frame.index:06d}.png"
        assert image["mask_file_name"] == f"{frame.index:06d}_{frame.pts}.png"
        assert image["video"] == "clip.mp4"
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds([frame.index])):
            mask = coco.annToMask(annotation)
            labels[mask > 0] = annotation["category_id"]
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            assert annotation["area"] == mask.sum()
            assert annotation["bbox"] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["score"] == pytest.approx(0.7, abs=1e-3)
        assert np.array_equal(labels, labels_at_frame(segmentation, HEIGHT, WIDTH))
    identifiers = [a["id"] for a in coco.dataset["annotations"]]
    assert identifiers == list(range(1, len(identifiers) + 1))
    assert os.listdir(tmp_path) == ["x.coco.json"]


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, (6, 8), elements=st.integers(0, 3)), st.integers(1, 80), st.integers(1, 80))
def test_run_lengths_of_any_mask(
    tmp_path_factory: pytest.TempPathFactory, labels: Labels, height: int, width: int
) -> None:
    path = tmp_path_factory.mktemp("coco") / "x.coco.json"
    segmentation = segment(labels, (height, width))
    with CocoSink(path, SCENE) as sink:
        sink.write(make_frame(0, (height, width)), segmentation)
    found = np.zeros((height, width), np.uint8)
    for annotation in json.loads(path.read_text())["annotations"]:
        found[coco_mask.decode(annotation["segmentation"]) > 0] = annotation["category_id"]
    assert np.array_equal(found, labels_at_frame(segmentation, height, width))


def test_coco_of_frames_without_segmentation(tmp_path: Path) -> None:
    with CocoSink(tmp_path / "x.coco.json", SCENE) as sink:
        sink.write(make_frame(0), None)
        sink.write(make_frame(1), segment(np.zeros((12, 16), np.uint8)))
    data = json.loads((tmp_path / "x.coco.json").read_text())
    assert data["annotations"] == []
    assert [image["segmented"] for image in data["images"]] == [False, True]


def test_events(tmp_path: Path) -> None:
    labels = np.zeros((12, 16), np.uint8)
    labels[3:6, 4:12] = 2
    seen = make_frame(0, damaged=True, durations={"decode": 0.0015, "refine": 0.002})
    seen.times["captured"] = time.monotonic() - 0.02
    with EventSink(tmp_path / "x.jsonl", SCENE) as sink:
        sink.write(seen, replace(segment(labels, (96, 128)), damage=DamageEstimate(2.344, 90.0, 41.0)))
        sink.write(make_frame(1), None)
    header, first, second = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert (header["format"], header["format_version"]) == ("cliprl-events", 1)
    assert header["stream"]["rate"] == "25/1"
    assert [c["name"] for c in header["classes"]] == [c.name for c in CLASSES]
    assert (first["index"], first["pts"], first["damaged"], first["segmented"]) == (0, -500, True, True)
    assert first["seconds"] == pytest.approx(-500 / 90000)
    assert (first["confidence"], first["steps"], first["moved"]) == (0.7, 2, 0.015625)
    assert not {"doubt", "distance", "unsure", "unfamiliar"} & first.keys()  # without a fitted confidence
    jsonschema.validate(first, load_schema("events"), jsonschema.Draft202012Validator)
    assert first["image_quality"] == {"haze": 41.0, "brightness": 90.0, "noise": 2.34}
    share = 3 * 8 / (12 * 16)
    expected = {"pixels": round(share * 96 * 128), "share": share, "box": [32, 24, 64, 24]}
    assert first["classes"] == {"grasper, «große»": expected}
    latency = first["latency_ms"]
    assert (latency["decode"], latency["refine"]) == (1.5, 2.0)
    assert latency["age"] >= 20
    assert (second["segmented"], second["latency_ms"]) == (False, {})
    assert "classes" not in second
    assert not {"captured_utc"} & (first.keys() | second.keys())  # a file was captured at another time


def test_events_of_a_live_source_state_utc(tmp_path: Path) -> None:
    live = replace(SCENE, stream=replace(SCENE.stream, live=True))
    seen = make_frame(0)
    seen.times["captured"] = time.monotonic() - 3600.0
    with EventSink(tmp_path / "x.jsonl", live) as sink:
        sink.write(seen, None)
    event = json.loads((tmp_path / "x.jsonl").read_text().splitlines()[1])
    jsonschema.validate(event, load_schema("events"), jsonschema.Draft202012Validator)
    age = datetime.now(UTC) - datetime.fromisoformat(event["captured_utc"])
    assert 3600 <= age.total_seconds() + 0.001 < 3660


def test_events_reach_the_disk_while_the_run_goes_on(tmp_path: Path) -> None:
    sink = EventSink(tmp_path / "x.jsonl", SCENE)
    sink.write(make_frame(0), None)
    written = (tmp_path / ".x.partial.jsonl").read_text().splitlines()
    assert [json.loads(line).get("index") for line in written] == [None, 0]
    sink.close()


def video(path: Path) -> Sink:
    return VideoSink(path, SCENE)


def coco(path: Path) -> Sink:
    return CocoSink(path, SCENE)


def events(path: Path) -> Sink:
    return EventSink(path, SCENE)


SINKS = pytest.mark.parametrize(
    ("make", "name"),
    [(video, "out.mp4"), (coco, "out.coco.json"), (events, "out.jsonl")],
    ids=("video", "coco", "events"),
)


@SINKS
def test_a_failed_run_leaves_the_earlier_file(tmp_path: Path, make: Callable[[Path], Sink], name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"earlier")
    with pytest.raises(ValueError, match="broken"):
        fail(make(path))
    assert path.read_bytes() == b"earlier"
    (partial,) = set(os.listdir(tmp_path)) - {name}
    assert partial.startswith(".out")
    if name.endswith("json"):
        assert json.loads((tmp_path / partial).read_text())["images"]


def fail(sink: Sink) -> None:
    with sink:
        sink.write(make_frame(0), segment(grid(0)))
        raise ValueError("broken")


def test_a_failed_run_leaves_the_earlier_masks(tmp_path: Path) -> None:
    write_all(MaskSink(tmp_path / "masks", SCENE))
    with pytest.raises(ValueError, match="broken"):
        fail(MaskSink(tmp_path / "masks", SCENE))
    assert len(os.listdir(tmp_path / "masks")) == 4
    assert sorted(os.listdir(tmp_path / ".masks.partial")) == ["000000_-500.png", "classes.json"]


@SINKS
def test_a_full_device(tmp_path: Path, make: Callable[[Path], Sink], name: str) -> None:
    (tmp_path / name).symlink_to("/dev/full")
    sink = make(tmp_path / name)
    with pytest.raises(CliprlError, match=os.strerror(errno.ENOSPC)) as failure:
        write_all(sink)
    assert "\n" not in str(failure.value)
    assert failure.value.exit_status == 1
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(("number", "status"), [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EACCES, 2)])
@pytest.mark.parametrize("name", ["masks/", "out.frames/", "out.yolo/", "out.coco.json"])
def test_a_disk_that_refuses_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int, status: int
) -> None:
    unpatched: Any = Path.open

    def refuse(path: object = None, *args: Any, **options: Any) -> Any:
        if isinstance(path, Path) and not path.is_relative_to(tmp_path):
            return unpatched(path, *args, **options)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(CliprlError, match=os.strerror(number)) as failure:
        open_sink(f"{tmp_path}/{name}", SCENE)
    assert failure.value.exit_status == status
    assert ("free some space" in str(failure.value)) == (status == 1)
    assert "masks to" not in str(failure.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["out.coco.json", "out.jsonl", "masks/"])
def test_a_full_disk_keeps_what_was_written(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 3, (120, 160), np.uint8)
    items = [(make_frame(i), segment(grid(i))) for i in range(20)]
    large = (make_frame(20, (480, 640)), segment(noise, (480, 640)))
    sink = open_sink(f"{tmp_path}/{name}", SCENE)
    with file_size_limit(20_000), pytest.raises(CliprlError, match=os.strerror(errno.EFBIG)) as failure:
        write_items(sink, [*items, *[large] * 200])
    (partial,) = tmp_path.iterdir()
    assert str(partial) in str(failure.value)
    if name == "masks/":
        assert sorted(os.listdir(partial)) == sorted(
            [*(f"{f.index:06d}_{f.pts}.png" for f, _ in items), "classes.json"]
        )
    else:
        whole = partial.read_text().splitlines()[3:-1]
        assert len(whole) >= 20
        assert all(json.loads(line.rstrip(",")) for line in whole)


@pytest.mark.parametrize("name", ["nowhere/x.jsonl", "nowhere/x.coco.json", "nowhere/masks/", "file/"])
def test_misuse_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as failure:
        open_sink(f"{tmp_path}/{name}", SCENE)
    assert "\n" not in str(failure.value)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["/proc/x.jsonl", "/proc/x.coco.json", "/proc/masks/"])
def test_places_that_cannot_be_written_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="choose another"):
        open_sink(name, SCENE)


def test_names_lead_to_sinks(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    kinds = {
        "a.mp4": VideoSink,
        "a.MKV": VideoSink,
        "a.mov": VideoSink,
        "masks/": MaskSink,
        "there": MaskSink,
        "a.coco.json": CocoSink,
        "a.jsonl": EventSink,
    }
    for name, kind in kinds.items():
        with open_sink(f"{tmp_path}/{name}", SCENE) as sink:
            assert isinstance(sink, kind)
    assert isinstance(open_sink("null:", SCENE), NullSink)
    assert os.listdir(tmp_path) == ["there"]
    for name in ("a.avi", "a.json", "a"):
        with pytest.raises(UsageError, match="names no kind"):
            open_sink(tmp_path / name, SCENE)


def test_several_sinks_take_the_same_frames(tmp_path: Path) -> None:
    null = NullSink()
    targets = [tmp_path / "a.mp4", tmp_path / "a.coco.json", tmp_path / "a.jsonl", f"{tmp_path}/masks/"]
    write_all(SinkGroup([*(open_sink(t, SCENE) for t in targets), null]))
    assert null.frames == 3
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 4
    assert len(COCO(str(tmp_path / "a.coco.json")).imgs) == 3
    assert len(os.listdir(tmp_path / "masks")) == 4
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert len(list(container.decode(video=0))) == 3


def test_one_that_fails_is_named_and_the_others_are_finished(tmp_path: Path) -> None:
    (tmp_path / "full.jsonl").symlink_to("/dev/full")
    null = NullSink()
    group = SinkGroup([VideoSink(tmp_path / "a.mp4", SCENE), EventSink(tmp_path / "full.jsonl", SCENE), null])
    with pytest.raises(CliprlError, match=r"full\.jsonl"):
        group.write(make_frame(0), segment(grid(0)))
    (note,) = group.notes
    assert ".a.partial.mp4" in note
    with av.open(str(tmp_path / ".a.partial.mp4")) as container:
        assert len(list(container.decode(video=0))) == 1
    assert null.frames == 0


def test_all_that_cannot_be_finished_are_named(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).symlink_to("/dev/full")
    group = SinkGroup([VideoSink(tmp_path / "a.mp4", SCENE), VideoSink(tmp_path / "b.mp4", SCENE)])
    group.write(make_frame(0), None)  # so little that it waits in memory
    with pytest.raises(CliprlError, match=r"a\.mp4.*; .*b\.mp4"):
        group.close()
