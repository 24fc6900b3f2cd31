"""Label files for labelling tools: what is written stands for the masks, and names the frames as the tools do."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from sink_inputs import CLASSES, HEIGHT, SCENE, WIDTH, Labels, grid, make_frame, segment, write_all, write_items

from cliprl.engines import UsageError
from cliprl.pipeline.core.frame import Frame, ImageFile
from cliprl.pipeline.core.interfaces import LabelStyle
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.overlay.original import KeepOriginal
from cliprl.pipeline.overlay.upsample import labels_at_frame
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sinks.shapes.polygons import center_mask, center_polygons, edge_mask, edge_polygons
from cliprl.pipeline.sinks.shapes.run_lengths import brush_runs, cvat_runs, from_brush_runs, from_cvat_runs

NAMES = {spec.name: i for i, spec in enumerate(CLASSES)}
# Reads a label file: the labels of each frame by its name.
Read = Callable[[Path], dict[str, Labels]]


@pytest.mark.parametrize(
    "name", ["a.coco.json", "a.cvat.xml", "a.labelstudio.json", "a.jsonl", "a.html", "a/", "a.yolo/"]
)
def test_masks_of_more_classes_than_named_are_refused(tmp_path: Path, name: str) -> None:
    """A class without a name would be left out, be a color that is not in the palette, or end in an IndexError."""
    few = replace(SCENE, classes=CLASSES[:2])
    with pytest.raises(UsageError, match="opened with 2 classes, and the masks have 4: give"):
        write_all(open_sink(f"{tmp_path}/{name}", few))
    assert not list(tmp_path.iterdir())


def drawn(shapes: list[tuple[str, str, NDArray[np.bool_]]]) -> dict[str, Labels]:
    """Labels of each frame from (frame, class, mask)."""
    found: dict[str, Labels] = defaultdict(lambda: np.zeros((HEIGHT, WIDTH), np.uint8))
    for frame, name, mask in shapes:
        found[frame][mask] = NAMES[name]
    return found


def read_coco(path: Path) -> dict[str, Labels]:
    coco = COCO(str(path))
    names = {c["id"]: c["name"] for c in coco.dataset["categories"]}
    images = {i["id"]: i["file_name"] for i in coco.dataset["images"]}
    anns = coco.dataset["annotations"]
    assert {a["iscrowd"] for a in anns} == {int(isinstance(anns[0]["segmentation"], dict))}
    assert {a["attributes"]["track_id"] for a in anns} <= set(names)
    return drawn([(images[a["image_id"]], names[a["category_id"]], coco.annToMask(a) > 0) for a in anns])


def shape_mask(element: ElementTree.Element) -> NDArray[np.bool_]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    if element.tag == "polygon":
        points = [[float(v) for v in pair.split(",")] for pair in element.attrib["points"].split(";")]
        return edge_mask([np.array(points)], HEIGHT, WIDTH)
    left, top, width, height = (int(element.attrib[key]) for key in ("left", "top", "width", "height"))
    lengths = [int(length) for length in element.attrib["rle"].split(",")]
    mask[top : top + height, left : left + width] = from_cvat_runs(lengths, height, width)
    return mask


def read_cvat(path: Path) -> dict[str, Labels]:
    root = ElementTree.parse(path).getroot()
    assert [label.findtext("name") for label in root.iter("label")] == [c.name for c in CLASSES[1:]]
    size = root.find("meta/task/original_size")
    assert size is not None
    assert (size.findtext("width"), size.findtext("height")) == (str(WIDTH), str(HEIGHT))
    shapes = []
    assert not list(root.iter("track")), "datumaro reads no mask in a track"
    for number, image in enumerate(root.iter("image")):
        assert (image.attrib["id"], image.attrib["width"], image.attrib["height"]) == (
            str(number),
            str(WIDTH),
            str(HEIGHT),
        )
        shapes += [(image.attrib["name"], element.attrib["label"], shape_mask(element)) for element in image]
    return drawn(shapes)


def read_label_studio(path: Path) -> dict[str, Labels]:
    shapes = []
    for task in json.loads(path.read_text()):
        for item in task["predictions"][0]["result"]:
            assert (item["from_name"], item["to_name"]) == ("tag", "image")
            size, value = (item["original_height"], item["original_width"]), item["value"]
            if item["type"] == "brushlabels":
                mask = from_brush_runs(value["rle"], *size)
            else:
                mask = edge_mask([np.array(value["points"]) * (size[1] / 100, size[0] / 100)], *size)
            shapes.append((task["data"]["image"], value[item["type"]][0], mask))
    return drawn(shapes)


FORMATS: dict[str, Read] = {
    "x.coco.json": read_coco,
    "x.cvat.xml": read_cvat,
    "x.labelstudio.json": read_label_studio,
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("polygons", [False, True])
@pytest.mark.parametrize("images", [False, True])
def test_a_label_file_holds_the_masks_of_each_frame(tmp_path: Path, name: str, polygons: bool, images: bool) -> None:
    items = [
        (make_frame(i, file=ImageFile(f"a&b/<{i}>.jpg", str(i)) if images else None), segment(grid(i)))
        for i in range(3)
    ]
    write_items(open_sink(tmp_path / name, replace(SCENE, style=LabelStyle(polygons=polygons))), items)
    found = FORMATS[name](tmp_path / name)
    assert list(found) == [f"a&b/<{i}>.jpg" if images else f"frame_{i:06d}.png" for i in range(3)]
    check_labels(list(found.values()), items, exact=not polygons)
    assert os.listdir(tmp_path) == [name]


def check_labels(found: list[Labels], items: list[tuple[Frame, Segmentation]], *, exact: bool) -> None:
    for labels, (_, segmentation) in zip(found, items, strict=True):
        expected = labels_at_frame(segmentation, HEIGHT, WIDTH)
        assert not exact or np.array_equal(labels, expected)
        for i in np.unique(expected[expected > 0]):
            one, other = labels == i, expected == i
            assert (one & other).sum() / (one | other).sum() >= 0.99


def test_yolo_folder(tmp_path: Path) -> None:
    items = write_all(open_sink(f"{tmp_path}/x.yolo/", SCENE))
    folder = tmp_path / "x.yolo"
    names = [f"  {i}: {json.dumps(c.name)}" for i, c in enumerate(CLASSES[1:])]
    assert (folder / "data.yaml").read_text().splitlines() == ["train: images", "val: images", "names:", *names]
    found = []
    for frame, _ in items:
        assert cv2.imread(str(folder / "images" / f"frame_{frame.index:06d}.png")).shape == (HEIGHT, WIDTH, 3)
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        for line in (folder / "labels" / f"frame_{frame.index:06d}.txt").read_text().splitlines():
            number, *shares = line.split()
            points = np.array(shares, float).reshape(-1, 2) * (WIDTH, HEIGHT)
            labels[center_mask([points], HEIGHT, WIDTH)] = int(number) + 1
        found.append(labels)
    check_labels(found, items, exact=False)


def test_a_small_region_is_drawn_over_a_large_one(tmp_path: Path) -> None:
    labels = np.full((12, 16), 3, np.uint8)
    labels[:, :5], labels[6, 7], labels[2:4, 9] = 0, 1, 2
    write_items(open_sink(f"{tmp_path}/x.yolo/", SCENE), [(make_frame(0), segment(labels))])
    lines = (tmp_path / "x.yolo/labels/frame_000000.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["2", "1", "0"]


def test_dataset_folder_without_frames_that_were_not_segmented(tmp_path: Path) -> None:
    items = [(make_frame(i), segment(grid(i))) for i in range(2)]
    with open_sink(f"{tmp_path}/x.dataset/", SCENE) as sink:
        for frame, segmentation in items:
            sink.write(frame, segmentation)
        sink.write(make_frame(2), None)
    folder = tmp_path / "x.dataset"
    names = ["frame_000000.png", "frame_000001.png"]
    assert [sorted(os.listdir(folder / part)) for part in ("images", "masks")] == [names, names]
    check_labels([np.array(Image.open(folder / "masks" / n)) for n in names], items, exact=True)


@pytest.mark.parametrize("name", ["x.yolo/", "x.dataset/", "x.frames/"])
def test_folders_replace_only_what_an_earlier_run_wrote(tmp_path: Path, name: str) -> None:
    write_all(open_sink(f"{tmp_path}/{name}", SCENE), 3)
    write_all(open_sink(f"{tmp_path}/{name}", SCENE), 1)
    files = list((tmp_path / name).rglob("*.png"))
    assert {path.name for path in files} == {"frame_000000.png"}
    folder = files[0].parent
    (folder / "thesis.tex").touch()
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        open_sink(tmp_path / name, SCENE)
    assert (folder / "thesis.tex").exists()


def test_an_interrupted_folder_keeps_what_it_has(tmp_path: Path) -> None:
    sink = open_sink(f"{tmp_path}/x.yolo/", SCENE)
    sink.write(make_frame(0), segment(grid(0)))
    sink.__exit__(RuntimeError, RuntimeError(), None)
    (kept,) = tmp_path.iterdir()
    assert kept.name.startswith(".x.yolo.partial")
    assert len(list(kept.rglob("*.png"))) == 1
    with open_sink(f"{tmp_path}/y.yolo/", SCENE):
        pass
    assert not (tmp_path / "y.yolo").exists()


@pytest.mark.parametrize(
    ("names", "clip", "stem"),
    [
        ("frame", "Fall 7:a", "frame_000012"),
        ("pts", "Fall 7:a", "000012_42700"),
        ("clip", "Fall 7:a", "Fall_7_a_000012"),
        ("clip", "Fu\u0308ße & Öl", "Füße_Öl_000012"),
        ("clip", "手術 शल्य", "手術_शल्य_000012"),
        ("clip", "手" * 60, f"{'手' * 33}_000012"),
        ("clip", "\udce9 \u202e", "clip_000012"),
    ],
)
def test_names_of_frames(tmp_path: Path, names: str, clip: str, stem: str) -> None:
    style = LabelStyle(names=names, frames="x.frames")
    spec = replace(SCENE, stream=replace(SCENE.stream, name=f"d/Fall 7 ä/{clip}.mp4"), style=style)
    for name in ("x.frames/", "x.coco.json", "x.labelstudio.json"):
        write_items(open_sink(f"{tmp_path}/{name}", spec), [(make_frame(12), segment(grid(0)))])
    assert (tmp_path / "x.frames" / f"{stem}.png").exists()
    assert json.loads((tmp_path / "x.coco.json").read_text())["images"][0]["file_name"] == f"{stem}.png"
    (task,) = json.loads((tmp_path / "x.labelstudio.json").read_text())
    assert task["data"]["image"] == f"/data/local-files/?d=x.frames/{stem}.png"


def test_exported_frames_are_those_before_the_overlay(tmp_path: Path) -> None:
    class Red:
        to_host = True

        def draw(self, frame: Frame, segmentation: Segmentation | None, status: str | None = None) -> None:
            frame.luma[:], frame.chroma[:] = 63, (102, 240)

    frame = make_frame(0, rotation=90)
    frame.luma[0, :8] = 235
    KeepOriginal(Red()).draw(frame, None)
    with open_sink(f"{tmp_path}/x.frames/", SCENE) as sink:
        sink.write(frame, None)
    image = cv2.imread(str(tmp_path / "x.frames" / "frame_000000.png"))
    assert image.shape == (WIDTH, HEIGHT, 3), "upright"
    assert np.ptp(image, axis=2).max() <= 2, "grey"
    assert image[-1, 0].min() > 240, "the top left corner, turned counter-clockwise"


def test_category_ids_count_from_one_wherever_the_background_stands(tmp_path: Path) -> None:
    spec = replace(SCENE, classes=(CLASSES[1], CLASSES[0], CLASSES[2], CLASSES[3]))
    write_items(open_sink(tmp_path / "x.coco.json", spec), [(make_frame(0), segment(np.zeros((12, 16), np.uint8)))])
    data = json.loads((tmp_path / "x.coco.json").read_text())
    assert [(c["id"], c["mask_value"]) for c in data["categories"]] == [(1, 0), (2, 2), (3, 3)]
    assert data["annotations"][0]["category_id"] == 1


@settings(max_examples=40)
@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.integers(1, 5))
def test_shapes_of_any_mask(small: NDArray[np.bool_], scale: int) -> None:
    mask = small.repeat(scale, 0).repeat(scale, 1)
    assert np.array_equal(from_cvat_runs(cvat_runs(mask), *mask.shape), mask)
    assert np.array_equal(from_brush_runs(brush_runs(mask), *mask.shape), mask)
    assert all(len(ring) >= 3 for ring in (*edge_polygons(mask), *center_polygons(mask)))
    for again in (edge_mask(edge_polygons(mask), *mask.shape), center_mask(center_polygons(mask), *mask.shape)):
        assert (again ^ mask).sum() <= max(2, 0.01 * mask.sum()), "a seam may cross a pixel or two"


@pytest.mark.parametrize("cut", [0, 9, -1])
def test_damaged_run_lengths(cut: int) -> None:
    data = brush_runs(np.eye(9, dtype=bool))
    with pytest.raises(ValueError, match=r"run lengths|pixels"):
        from_brush_runs(data[:cut] if cut >= 0 else data, 9, 9 if cut >= 0 else 8)
    with pytest.raises(ValueError, match="runs cover"):
        from_cvat_runs([3, -1], 1, 2)


def test_a_cvat_file_keeps_the_characters_of_names(tmp_path: Path) -> None:
    name = "a \"b\" 'c' <d> & e\n\tf.png"
    with open_sink(tmp_path / "x.cvat.xml", SCENE) as sink:
        sink.write(make_frame(0, file=ImageFile(name, "a")), segment(grid(0)))
    images = ElementTree.parse(tmp_path / "x.cvat.xml").iter("image")
    assert [image.get("name") for image in images] == [name]
