"""Labels as the tools export them: their folders, their names, and what is refused, with the file and the remedy."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from label_files import SIZE, SQUARE, brush, coco, cvat, image_element, tasks

from cliprl.engines import CliprlError, UsageError
from cliprl.models.data.registry import lines_of_path, open_dataset

RING = "0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5"
HOOK = [{"segmentation": [SQUARE], "category_id": 2}]


def write(folder: Path, files: dict[str, str | None]) -> Path:
    """Write texts, and gray images for those that are None, each of another gray."""
    for number, (name, text) in enumerate(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            cv2.imwrite(str(path), np.full((*SIZE, 3), 10 * number, np.uint8))
        else:
            path.write_text(text, encoding="utf-8")
    return folder


def roboflow() -> str:
    data = json.loads(coco(HOOK))
    data["categories"] = [
        {"id": 0, "name": "tools", "supercategory": "none"},
        {"id": 1, "name": "liver", "supercategory": "tools"},
        {"id": 2, "name": "hook", "supercategory": "tools"},
    ]
    return json.dumps(data)


EXPORTS: dict[str, dict[str, str | None]] = {
    "CVAT for images": {
        "annotations.xml": image_element('<polygon label="hook" points="10,5;30,5;30,25;10,25"/>', "sub/a.png"),
        "images/sub/a.png": None,
    },
    "CVAT for video": {
        "annotations.xml": cvat(
            '<track id="0" label="hook"><polygon frame="3" points="10,5;30,5;30,25;10,25"/></track>'
        ),
        "images/frame_000003.PNG": None,
    },
    "COCO of CVAT": {
        "annotations/instances_default.json": coco(HOOK),
        "images/default/a.png": None,
    },
    "COCO of Roboflow": {"train/_annotations.coco.json": roboflow(), "train/a.png": None},
    "COCO of Label Studio": {"result.json": coco(HOOK, file_name="images\\0a1b2c3d-a.png"), "images/a.png": None},
    "Label Studio": {"project-1.json": tasks(brush()), "a.png": None},
    "with a byte order mark": {"task.json": "\ufeff" + coco(HOOK), "a.png": None},
    "YOLO of Roboflow": {
        "data.yaml": "train: ../train/images\nnc: 2\nnames: ['liver', 'hook']",
        "train/labels/a.txt": f"1 {RING}",
        "train/images/a.JPG": None,
    },
    "YOLO of CVAT": {
        "data.yaml": "path: .\nnames:\n  0: liver\n  1: hook\ntrain: train.txt",
        "train.txt": "data/images/train/a.png",
        "labels/train/a.txt": f"1 {RING}",
        "images/train/a.png": None,
    },
}


@pytest.mark.parametrize("case", EXPORTS)
def test_exported_folders_are_recognized_and_read(tmp_path: Path, case: str) -> None:
    (line,) = lines_of_path(str(write(tmp_path, EXPORTS[case])))
    data = open_dataset(line)
    assert [spec.name for spec in data.classes] == ["unlabelled", *(["liver"] * (case != "Label Studio")), "hook"]
    assert len(data) == 1
    assert (data[0].labels == len(data.classes) - 1)[12:18, 17:28].all()


@pytest.mark.parametrize("names", [{"classes.txt": "liver\nhook\n"}, {"mine.yml": "names: {0: liver, 1: hook}"}])
def test_yolo_folders_without_data_yaml(tmp_path: Path, names: dict[str, str | None]) -> None:
    write(tmp_path, {**names, "labels/a.txt": f"1 {RING}", "images/a.png": None})
    assert [spec.name for spec in open_dataset(f"yolo:{tmp_path}").classes] == ["unlabelled", "liver", "hook"]


# Addresses of images in a task, the files beside it, and those that are meant.
ADDRESSES: dict[str, tuple[list[str], list[str], list[str]]] = {
    "date": (["s3://b/20240512-001.png"], ["001.png", "20240512-001.png"], ["20240512-001.png"]),
    "two dates": (["s3://b/20240512-1.png", "s3://b/20240513-1.png"], ["20240512-1.png", "20240513-1.png"], []),
    "date uploaded": (["/data/upload/1/0a1b2c3d-op_20240512-1.png"], ["op_20240512-1.png"], []),
    "upload kept": (["/data/upload/1/0a1b2c3d-op_20240512-1.png"], ["0a1b2c3d-op_20240512-1.png"], []),
    "date alone": (["20240512-1.png"], ["20240512-1.png"], []),
}


@pytest.mark.parametrize("case", ADDRESSES)
def test_only_the_prefix_of_an_upload_is_removed(tmp_path: Path, case: str) -> None:
    addresses, files, meant = ADDRESSES[case]
    exported = [json.loads(tasks(brush(), image=address))[0] for address in addresses]
    write(tmp_path, {"x.json": json.dumps(exported), **dict.fromkeys(files)})
    data = open_dataset(f"labelstudio:{tmp_path}/x.json")
    assert [file.path.name for file in data.frames] == (meant or files)  # type: ignore[attr-defined]


def test_two_frames_with_one_image_are_refused(tmp_path: Path) -> None:
    places = [f"/data/local-files/?d={case}/1.png" for case in ("case1", "case2")]
    exported = [json.loads(tasks(brush(), image=place))[0] for place in places]
    write(tmp_path, {"x.json": json.dumps(exported), "1.png": None})
    with pytest.raises(CliprlError, match="have one image"):
        open_dataset(f"labelstudio:{tmp_path}/x.json")


REFUSED: dict[str, tuple[str, str, Sequence[str]]] = {
    "LabelMe": ("coco", '{"version": "5", "shapes": [], "imagePath": "a.png"}', ["LabelMe", "convert it to COCO"]),
    "tasks as COCO": ("coco", tasks(brush()), ["Label Studio tasks", "give labelstudio:"]),
    "COCO as tasks": ("labelstudio", coco(HOOK), ["COCO file", "give coco:"]),
    "COCO as CVAT": ("cvat", coco(HOOK), ["no XML but a COCO file", "give coco:"]),
    "CVAT as COCO": ("coco", cvat(""), ["a file of CVAT", "give cvat:"]),
    "Pascal VOC": ("cvat", "<annotation><object/></annotation>", ["boxes of Pascal VOC", "masks or polygons"]),
    "other XML": ("cvat", "<html></html>", ["its root is 'html'"]),
    "results": ("coco", '[{"image_id": 1, "segmentation": {}}]', ["without images"]),
    "id": ("coco", coco(HOOK, id="abc"), ["images.0.id", "'abc'", "export the task again"]),
    "height": ("coco", coco(HOOK, height=-3), ["images.0.height", "'-3'"]),
    "reference": ("coco", coco([{"segmentation": [SQUARE], "image_id": [7]}]), ["annotations.0.image_id", "'[7]'"]),
    "mask size": ("coco", coco([{"segmentation": {"size": 5, "counts": [1]}}]), ["annotation 1", "'5'"]),
    "mask bytes": (
        "coco",
        coco([{"segmentation": {"size": [*SIZE], "counts": "~~~"}}]),
        ["annotation 1", "run lengths"],
    ),
    "many classes": ("coco", coco(HOOK, [f"c{i}" for i in range(300)]), ["300 classes", "labelled="]),
    "two tasks": (
        "cvat",
        cvat('<track task_id="1" label="hook"/><track task_id="2" label="hook"/>'),
        ["tasks 1, 2", "export each task alone"],
    ),
    "runs": (
        "cvat",
        image_element(f'<mask label="hook" rle="0,{1 << 70}" left="1" top="1" width="2" height="2"/>'),
        ["image 0", "can't be read"],
    ),
    "bare shape": ("labelstudio", tasks(brush(type="polygon")), ["result 0", "'polygon'", "polygonlabels"]),
    "two labels": (
        "labelstudio",
        tasks(brush(value={"brushlabels": ["hook", "liver"], "rle": []})),
        ["result 0", "['hook', 'liver']", "must have one"],
    ),
    "endless": ("labelstudio", tasks(brush(original_width=1e400)), ["result 0", "can't be read"]),
    "no list": ("labelstudio", '[{"data": {"image": "a.png"}, "annotations": 3}]', ["no labelled frame"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_labels_name_file_and_remedy(tmp_path: Path, case: str) -> None:
    kind, text, words = REFUSED[case]
    write(tmp_path, {"x.txt": text, "a.png": None})
    with pytest.raises(CliprlError) as caught:
        open_dataset(f"{kind}:{tmp_path}/x.txt")
    assert all(word in str(caught.value) for word in (f"{tmp_path}/x.txt", *words)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_archive_is_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        archive.writestr("annotations.xml", cvat(""))
    ways: list[Callable[[], Any]] = [
        lambda: open_dataset(f"coco:{tmp_path}/task.zip"),
        lambda: open_dataset(f"cvat:{tmp_path}/task.zip"),
        lambda: lines_of_path(f"{tmp_path}/task.zip"),
    ]
    for way in ways:
        with pytest.raises(CliprlError, match=r"ZIP archive: unpack it"):
            way()


def test_one_id_twice_is_refused(tmp_path: Path) -> None:
    data = json.loads(coco(HOOK))
    data["images"] *= 2
    write(tmp_path, {"x.json": json.dumps(data), "a.png": None})
    with pytest.raises(CliprlError, match="two images have the id 7"):
        open_dataset(f"coco:{tmp_path}/x.json")


def test_frames_of_another_video_are_not_taken(tmp_path: Path) -> None:
    text = coco(HOOK, file_name="frame_000003.png")
    write(tmp_path, {"a.coco.json": text, "b.coco.json": text, "a.frames/frame_000003.png": None})
    assert len(open_dataset(f"coco:{tmp_path}/a.coco.json")) == 1
    with pytest.raises(CliprlError, match=r"'frame_000003\.png' of image 7 is missing"):
        open_dataset(f"coco:{tmp_path}/b.coco.json")


def test_tasks_of_two_videos_in_one_export(tmp_path: Path) -> None:
    both = [
        json.loads(tasks(brush(), image=f"/data/local-files/?d=work/{clip}.frames/frame_000000.png"))[0]
        for clip in "ab"
    ]
    frames: dict[str, str | None] = {f"{clip}.frames/frame_000000.png": None for clip in "ab"}
    write(tmp_path, {"project.json": json.dumps(both), **frames})
    data = open_dataset(f"labelstudio:{tmp_path}/project.json")
    assert [int(data[i].image[0, 0, 0]) for i in range(2)] == [10, 20]


def test_an_image_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"x.json": coco(HOOK), "one/a.png": None, "two/a.png": None})
    with pytest.raises(CliprlError, match=r"may be any of .*one/a\.png', .*two/a\.png': give the folder"):
        open_dataset(f"coco:{tmp_path}/x.json")
    assert len(open_dataset(f"coco:{tmp_path}/x.json?images=two")) == 1


def test_frames_under_another_naming_are_found_by_number(tmp_path: Path) -> None:
    track = '<track id="0" label="hook"><polygon frame="3" points="10,5;30,5;30,25;10,25"/></track>'
    write(tmp_path, {"x.cvat.xml": cvat(track), "x.frames/000002_20.png": None, "x.frames/000003_30.png": None})
    data = open_dataset(f"cvat:{tmp_path}/x.cvat.xml")
    assert int(data[0].image[0, 0, 0]) == 20


def test_a_folder_without_labels_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": None, "notes.json": "{}"})
    with pytest.raises(UsageError, match="holds no labels that are recognized"):
        lines_of_path(str(tmp_path))
