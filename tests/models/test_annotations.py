"""Data sets of annotations: what this program wrote comes back, other tools' forms are read, faults are named with their item."""

from __future__ import annotations

import json
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from label_files import SIZE, SQUARE, brush, coco, compressed, cvat, image_element, points, square, tasks
from oriented import CORNERS, still
from sink_inputs import CLASSES, HEIGHT, SCENE, WIDTH, grid, make_frame, segment, write_items

from cliprl.engines import ClassSpec, CliprlError, UsageError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.cli import evaluate
from cliprl.models.data.image_mask_dataset import left_out_note
from cliprl.models.data.io import files_below
from cliprl.models.data.label_mapping import map_by_name, with_classes, with_partial_labels
from cliprl.models.data.registry import open_dataset
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT
from cliprl.models.data.sets.annotations import frames
from cliprl.models.data.splits import check_disjoint
from cliprl.models.tuning.tuning_data import label_notes
from cliprl.pipeline.core.frame import ImageFile
from cliprl.pipeline.core.interfaces import LabelStyle
from cliprl.pipeline.overlay.upsample import labels_at_frame
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sources import open_source

FORMATS = {"coco": "x.coco.json", "cvat": "x.cvat.xml", "labelstudio": "x.labelstudio.json", "yolo": "x.yolo/"}
# Frames 3, 4 and 7 of a clip with a variable rate.
NUMBERS = (3, 4, 7)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "frame_000003.png"):
        cv2.imwrite(str(tmp_path / name), np.full((*SIZE, 3), 90, np.uint8))
    return tmp_path


@pytest.mark.parametrize("polygons", [False, True])
@pytest.mark.parametrize("kind", FORMATS)
def test_what_was_written_comes_back(tmp_path: Path, kind: str, polygons: bool) -> None:
    items = [(make_frame(i), segment(grid(i))) for i in NUMBERS]
    spec = replace(SCENE, style=LabelStyle(polygons=polygons, frames="x.frames"))
    for name in (FORMATS[kind], "x.frames/"):
        write_items(open_sink(f"{tmp_path}/{name}", spec), items)
    data = with_classes(open_dataset(f"{kind}:{tmp_path}/{FORMATS[kind]}"), CLASSES[: 4 - (kind == "labelstudio")])
    assert len(data) == 3
    assert len({data.clip(0), data.clip(1)}) == 1
    assert data.clip(1) != data.clip(2), "frames 4 and 7 are no neighbours"
    for i, (frame, segmentation) in enumerate(items):
        sample, expected = data[i], labels_at_frame(segmentation, HEIGHT, WIDTH)
        assert data.dataset.image_file(i).name == f"frame_{frame.index:06d}.png"
        assert (sample.labels != expected).mean() <= (0.01 if polygons or kind == "yolo" else 0)


@pytest.mark.parametrize("kind", ["coco", "cvat", "labelstudio"])
def test_any_file_name_comes_back(tmp_path: Path, kind: str) -> None:
    names = [
        "esc\x1b.png",
        "lat\udce9.png",
        "lat\udce8.png",
        "a:b.png",
        "q?d=a.png",
        "q?.png",
        "#1.png",
        "50%41.png",
        "n\n.png",
    ]
    (tmp_path / "fr").mkdir()
    png = cv2.imencode(".png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes()
    for name in names:
        (tmp_path / "fr" / name).write_bytes(png)
    items = [(make_frame(i, file=ImageFile(name, Path(name).stem)), segment(grid(i))) for i, name in enumerate(names)]
    write_items(open_sink(f"{tmp_path}/{FORMATS[kind]}", SCENE), items)
    data = open_dataset(f"{kind}:{tmp_path}/{FORMATS[kind]}?images=fr")
    assert [data.image_file(i).name for i in range(len(data))] == names


@pytest.mark.parametrize("orientation", [3, 6])
def test_labels_lie_on_the_image_that_a_viewer_displays(tmp_path: Path, orientation: int) -> None:
    # The bottom right corner is yellow; 3 is stored upside down, 6 on its side.
    still(tmp_path / "a.jpg", orientation, (60, 40))
    (tmp_path / "mycoco.frames").mkdir()
    (tmp_path / "a.jpg").rename(tmp_path / "mycoco.frames" / "a.jpg")
    corner = [30, 20, 60, 20, 60, 40, 30, 40]
    (tmp_path / "mycoco.json").write_text(coco([{"segmentation": [corner]}], file_name="a.jpg"))
    sample = open_dataset(f"coco:{tmp_path}/mycoco.json")[0]
    assert sample.image.shape == (40, 60, 3)
    assert np.abs(sample.image[sample.labels > 0].mean(0) - CORNERS[3]).max() < 8
    assert np.abs(sample.image[:15, :25].mean((0, 1)) - CORNERS[0]).max() < 8


def test_frames_without_annotations_are_counted(images: Path) -> None:
    document = json.loads(coco([{"segmentation": [SQUARE]}]))
    document["images"].append(document["images"][0] | {"id": 8, "file_name": "b.png"})
    shutil.copy(images / "a.png", images / "b.png")
    (images / "x.json").write_text(json.dumps(document))
    for options, left_out in (("", 1), ("?empty=keep", 0), ("?every=2", 1)):
        data = open_dataset(f"coco:{images / 'x.json'}{options}")
        assert len(data) == 2 - left_out
        assert left_out_note(data).startswith(f"note: {left_out} frames of x.json have" if left_out else "")
        assert (left_out_note(data) in label_notes([data], [], data.classes)) == bool(left_out)


@pytest.mark.parametrize(
    ("stated", "numbers"),
    [
        ("<size>4</size>", [0, 1, 2, 3]),
        (
            "<size>2</size><start_frame>1</start_frame><stop_frame>4</stop_frame><frame_filter>step=2</frame_filter>",
            [1, 3],
        ),
        ("<size>9999999999</size>", [3]),
        ("", [3]),
    ],
)
def test_frames_of_a_track_file_without_shapes_count(images: Path, stated: str, numbers: list[int]) -> None:
    track = '<track id="0" label="hook"><polygon frame="3" points="10,5;30,5;30,25"/></track>'
    (images / "x.xml").write_text(cvat(track).replace("<task>", f"<task>{stated}"))
    for number in range(5):
        shutil.copy(images / "a.png", images / f"frame_{number:06d}.png")
    data = open_dataset(f"cvat:{images / 'x.xml'}?empty=keep")
    assert [data.image_file(i).stem for i in range(len(data))] == [f"frame_{n:06d}" for n in numbers]  # type: ignore[attr-defined]
    assert [bool(data[i].labels.any()) for i in range(len(data))] == [n == 3 for n in numbers]
    left_out = len(numbers) - 1
    assert left_out_note(open_dataset(f"cvat:{images / 'x.xml'}")).startswith(f"note: {left_out} f" if left_out else "")


def test_folders_tell_exports_of_one_name_apart(images: Path) -> None:
    sets = []
    for case, name in (("one", "_annotations.coco.json"), ("two", "_annotations.coco.json"), ("three", "case.1.json")):
        (images / case).mkdir()
        shutil.copy(images / "a.png", images / case)
        (images / case / name).write_text(coco([{"segmentation": [SQUARE]}]))
        sets.append(open_dataset(f"coco:{images / case / name}"))
    assert [data.sequence(0) for data in sets] == ["one _annotations", "two _annotations", "case.1"]
    check_disjoint(sets[:1], sets[1:])
    with pytest.raises(UsageError, match="would be trained on and tested on"):
        check_disjoint(sets[:1], sets)
    task = images / "one" / "annotations" / "annotations.xml"
    task.parent.mkdir()
    task.write_text(image_element('<polygon label="hook" points="10,5;30,5;30,25;10,25"/>'))
    assert open_dataset(f"cvat:{task}?images=..").sequence(0) == "one annotations"


def test_other_folders_are_not_read_without_need(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (images / "x.frames").mkdir()
    (images / "a.png").rename(images / "x.frames" / "a.png")
    (images / "x.coco.json").write_text(coco([{"segmentation": [SQUARE]}]))
    read: list[Path] = []

    def noted(folder: Path, *, whole: bool) -> Iterator[Path]:
        read.append(folder)
        return files_below(folder, whole=whole)

    monkeypatch.setattr(frames, "files_below", noted)
    assert len(open_dataset(f"coco:{images}/x.coco.json")) == 1
    assert read == [images / "x.frames"]


def test_a_video_serves_as_the_folder_of_images(tmp_path: Path) -> None:
    source, folder = "demo:?seconds=0.3&size=96x64", tmp_path
    with open_source(source) as demo, open_sink(f"{folder}/clip.mkv", replace(SCENE, stream=demo.info), crf=0) as video:
        for frame in demo:
            video.write(frame, None)
    track = '<track id="0" label="liver"><polygon frame="5" outside="0" points="1,1;9,1;9,9"/></track>'
    (folder / "x.cvat.xml").write_text(cvat(track, (64, 96)))
    data = open_dataset(f"cvat:{folder}/x.cvat.xml?images=clip.mkv")
    assert data[0].image.shape == (64, 96, 3)
    assert data.image_file(0).name == "frame_000005.png"


MASK = ", ".join(map(str, [0, 20 * 20]))
READ: dict[str, tuple[str, str]] = {
    "polygon": ("coco", coco([{"segmentation": [SQUARE], "category_id": 2}])),
    "compressed": (
        "coco",
        coco([{"category_id": 2, "segmentation": compressed()}]),
    ),
    "uncompressed": (
        "coco",
        coco([{"category_id": 2, "segmentation": {"size": list(SIZE), "counts": [405, *[20, 20] * 19, 20, 1215]}}]),
    ),
    "covered": ("coco", coco([{"segmentation": [SQUARE]}, {"segmentation": [SQUARE], "category_id": 2}])),
    "cvat polygon": ("cvat", image_element('<polygon label="hook" points="10,5;30,5;30,25;10,25"/>')),
    "cvat mask": ("cvat", image_element(f'<mask label="hook" rle="{MASK}" left="10" top="5" width="20" height="20"/>')),
    "cvat order": (
        "cvat",
        image_element(
            '<polygon label="hook" points="10,5;30,5;30,25;10,25" z_order="3"/><polygon label="liver" points="10,5;30,5;30,25"/>'
        ),
    ),
    "brush": ("labelstudio", tasks(brush())),
    "local file": ("labelstudio", tasks(brush(), image="/data/local-files/?d=some%20dir/a.png")),
    "prediction": ("labelstudio", tasks(brush(), key="predictions")),
    "percent": ("labelstudio", tasks(points(*(np.array(SQUARE).reshape(-1, 2) / (60, 40) * 100).ravel()))),
}


@pytest.mark.parametrize("case", READ)
def test_forms_that_tools_write(images: Path, case: str) -> None:
    kind, text = READ[case]
    (images / "x.txt").write_text(text)
    data = open_dataset(f"{kind}:{images}/x.txt")
    hook = [spec.name for spec in data.classes].index("hook")
    assert np.array_equal(data[0].labels == hook, square())
    assert set(np.unique(data[0].labels)) == {0, hook}


BAD: dict[str, tuple[str, str, Sequence[str]]] = {
    "turned": ("labelstudio", tasks(brush(image_rotation=90)), ["task", "'0a1b2c3d-a.png'", "turned by 90 degrees"]),
    "category": (
        "coco",
        coco([{"segmentation": [SQUARE], "category_id": 9}]),
        ["annotation 1", "category 9", "1 liver"],
    ),
    "image of none": ("coco", coco([{"segmentation": [SQUARE], "image_id": 8}]), ["annotation 1", "image 8"]),
    "missing": ("coco", coco([{"segmentation": [SQUARE]}], file_name="zz.png"), ["'zz.png'", "image 7", "images="]),
    "size": ("coco", coco([{"segmentation": [SQUARE]}], width=61), ["image 7", "61x40", "60x40", "a.png"]),
    "rle size": (
        "coco",
        coco([{"segmentation": {"size": [40, 61], "counts": [2440]}}]),
        ["annotation 1 of 'a.png'", "61x40", "60x40"],
    ),
    "rle short": (
        "coco",
        coco([{"segmentation": {"size": [40, 60], "counts": [5, 5]}}]),
        ["annotation 1", "run lengths"],
    ),
    "outside": (
        "coco",
        coco([{"segmentation": [[1, 1, 90, 1, 9, 9]]}]),
        ["annotation 1 of 'a.png'", "(90, 1)", "60x40"],
    ),
    "huge": ("coco", coco([{"segmentation": [[1, 1, 10**400, 1, 9, 9]]}]), ["annotation 1 of 'a.png'", "polygon"]),
    "box": ("coco", coco([{"bbox": [1, 1, 2, 2]}]), ["annotation 1", "segmentation", "boxes"]),
    "empty": ("coco", coco([]), ["no labelled frame"]),
    "no json": ("coco", "{", ["no COCO file"]),
    "a list": ("coco", "[]", ["no COCO file"]),
    "mixed": (
        "coco",
        json.dumps(
            {
                "images": [
                    {"id": i, "file_name": n, "segmented": True}
                    for i, n in enumerate(["frame_000003.png", "000004_3600.png"])
                ],
                "categories": [{"id": 1, "name": "liver"}],
                "annotations": [],
            }
        ),
        ["mixes frame namings", "image 0", "image 1"],
    ),
    "cvat label": (
        "cvat",
        image_element('<polygon label="hok" points="1,1;9,1;9,9"/>'),
        ["image 0 'a.png'", "'hok'", "liver, hook"],
    ),
    "cvat missing": (
        "cvat",
        image_element('<polygon label="hook" points="1,1;9,1;9,9"/>', "q.png"),
        ["'q.png'", "image 0"],
    ),
    "cvat size": (
        "cvat",
        image_element('<polygon label="hook" points="1,1;9,1;9,9"/>', width=80),
        ["image 0", "80x40", "60x40"],
    ),
    "cvat outside": (
        "cvat",
        image_element('<polygon label="hook" points="1,1;9,-8;9,9"/>'),
        ["image 0 'a.png'", "(9, -8)"],
    ),
    "cvat mask": (
        "cvat",
        image_element(f'<mask label="hook" rle="{MASK}" left="50" top="5" width="20" height="20"/>'),
        ["image 0 'a.png'", "20x20 at (50, 5)"],
    ),
    "cvat runs": (
        "cvat",
        image_element('<mask label="hook" rle="1,2" left="0" top="5" width="9" height="9"/>'),
        ["image 0", "81"],
    ),
    "cvat box": ("cvat", image_element('<box label="hook" xtl="1" ytl="1" xbr="2" ybr="2"/>'), ["image 0", "a box"]),
    "cvat empty": ("cvat", cvat(""), ["no labelled frame"]),
    "cvat text": ("cvat", "<a", ["no XML"]),
    "track": (
        "cvat",
        cvat('<track id="4" label="hok"><polygon frame="3" outside="0" points="1,1;9,1;9,9"/></track>'),
        ["track 4 in frame 3", "'hok'"],
    ),
    "track frame": (
        "cvat",
        cvat(f'<track id="4" label="hook"><polygon frame="{"9" * 5000}" outside="0" points="1,1;9,1;9,9"/></track>'),
        ["track 4 has a shape in frame '999"],
    ),
    "brush size": ("labelstudio", tasks(brush(original_width=61)), ["task 12, result 0 of '0a1b2c3d-a.png'", "61x40"]),
    "brush two sizes": (
        "labelstudio",
        tasks(brush(), points(1, 1, 9, 1, 9, 9) | {"original_width": 30}),
        ["result 1", "30x40"],
    ),
    "points outside": ("labelstudio", tasks(points(1, 1, 150, 1, 9, 9)), ["task 12, result 0", "(90, 0.4)"]),
    "rectangle": ("labelstudio", tasks({"type": "rectanglelabels"}), ["task 12, result 0", "rectanglelabels"]),
    "no task": ("labelstudio", "[]", ["no labelled frame"]),
    "min": ("labelstudio", '[{"image": "a.png"}]', ["no list of Label Studio tasks"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_labels_are_named_with_file_and_item(images: Path, case: str) -> None:
    kind, text, words = BAD[case]
    (images / "x.txt").write_text(text)
    with pytest.raises(CliprlError) as caught:
        open_dataset(f"{kind}:{images}/x.txt")
    assert all(word in str(caught.value) for word in (f"{images}/x.txt", *words)), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def yolo(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str, names: str = "names: [liver, hook]") -> str:
        for part in ("images", "labels"):
            (tmp_path / part / "train").mkdir(parents=True)
        (tmp_path / "data.yaml").write_text(names)
        cv2.imwrite(str(tmp_path / "images/train/a.png"), np.zeros((*SIZE, 3), np.uint8))
        (tmp_path / "labels/train/a.txt").write_text(text)
        return f"yolo:{tmp_path}"

    return write


def test_yolo_of_another_tool(yolo: Callable[[str], str]) -> None:
    data = open_dataset(yolo("1 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5\n"))
    assert data.sequence(0) == "train"
    assert np.argwhere(data[0].labels == 2).min(axis=0).tolist() == [10, 15]


@pytest.mark.parametrize(
    ("names", "expected"),
    [("names: [no, 1]", ["no", "1"]), ("names:\r\n  0: off\r\n  1: hook\r\n", ["off", "hook"])],
)
def test_yolo_class_names_are_texts(yolo: Callable[..., str], names: str, expected: list[str]) -> None:
    data = open_dataset(yolo("1 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5\n", names))
    assert [spec.name for spec in data.classes[1:]] == expected


def test_one_yolo_class_name_is_no_list(yolo: Callable[..., str]) -> None:
    with pytest.raises(CliprlError, match="lists no names"):
        open_dataset(yolo("", "names: hook"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_labels_in_other_encodings_of_unicode(images: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    text = coco([{"segmentation": [SQUARE]}], ["Gefäß"]).replace("\\u00e4", "ä").replace("\\u00df", "ß")
    (images / "x.json").write_bytes((mark + text).encode(encoding))
    assert open_dataset(f"coco:{images}/x.json").classes[1].name == "Gefäß"


@pytest.mark.parametrize("side", [40_000, 12_000])
def test_an_image_of_too_many_pixels_is_told(tmp_path: Path, side: int, capfd: pytest.CaptureFixture[str]) -> None:
    """Pillow and OpenCV have limits of their own."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, b"IDAT")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    (tmp_path / "x.json").write_text(coco([{"segmentation": [SQUARE]}], height=side, width=side))
    data = open_dataset(f"coco:{tmp_path}/x.json")
    with pytest.raises(CliprlError, match=r"more than 2\^30 pixels" if side == 40_000 else "can't be read as an image"):
        data[0]
    assert "Warning" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("5 0 0 1 0 1 1", ["line 1", "class '5'", "1 hook"]),
        ("\n1 0 0 1 0 1 1.9", ["line 2", "(60, 76)", "60x40"]),
        ("1 0.5 0.5 0.1 0.1", ["line 1", "4 numbers"]),
        ("1 0 0 1 0 x 1", ["line 1", "no number"]),
        ("1 0 0 1 0 nan 1", ["line 1", "nan"]),
    ],
)
def test_bad_yolo_labels(yolo: Callable[[str], str], text: str, words: Sequence[str]) -> None:
    with pytest.raises(CliprlError) as caught:
        open_dataset(yolo(text))
    assert all(word in str(caught.value) for word in ("a.txt", *words)), str(caught.value)


def test_a_yolo_text_without_image(yolo: Callable[[str], str], tmp_path: Path) -> None:
    line = yolo("")
    (tmp_path / "labels" / "train" / "b.txt").write_text("")
    with pytest.raises(CliprlError, match=r"b\.txt.*missing"):
        open_dataset(line)


BUNDLE = (
    ClassSpec("tissue", (0, 0, 0), "background"),
    ClassSpec("liver", (1, 0, 0), "tissue"),
    ClassSpec("hook", (2, 0, 0), "instrument"),
    ClassSpec("grasper", (3, 0, 0), "instrument"),
)


def partly(names: str) -> Any:
    """A data set whose annotations are of some classes of the bundle."""
    labelled = (spec for name in names.split() for spec in BUNDLE if spec.name == name)
    return SimpleNamespace(name="x", classes=(ClassSpec("unlabelled", (0, 0, 0), "background"), *labelled))


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ("liver hook grasper", 0),
        ("hook grasper", NOT_INSTRUMENT),
        ("hook", IGNORE),
        ("liver", IGNORE),
        ("tissue liver hook grasper", IGNORE),
    ],
)
def test_what_an_unlabelled_pixel_is(names: str, code: int) -> None:
    data = with_classes(partly(names), BUNDLE)
    assert data.table[0] == code
    assert [BUNDLE[i].name for i in data.table[1 : len(names.split()) + 1]] == names.split()
    assert with_partial_labels(partly("hook"), BUNDLE).table[:2].tolist() == [NOT_INSTRUMENT, INSTRUMENT]


def test_instrument_of_an_unsure_part_is_a_partial_label() -> None:
    data: Any = SimpleNamespace(name="x", classes=(*BUNDLE, ClassSpec("instrument", (9, 9, 9), "instrument")))
    assert with_classes(data, BUNDLE).table[:5].tolist() == [0, 1, 2, 3, INSTRUMENT]
    assert with_classes(data, data.classes).table[4] == 4
    assert with_classes(data, BUNDLE, ["instrument"]).table[4] == IGNORE


def test_only_some_classes_were_labelled(images: Path) -> None:
    both = [{"segmentation": [SQUARE]}, {"segmentation": [[40, 5, 50, 5, 50, 9, 40, 9]], "category_id": 2}]
    (images / "x.json").write_text(coco(both))
    data = open_dataset(f"coco:{images}/x.json?labelled=hook&tissue=liver")
    assert [spec.name for spec in data.classes] == ["unlabelled", "hook"]
    assert np.array_equal(data[0].labels == IGNORE, square())
    with pytest.raises(UsageError, match=r"x\.json has no class 'hok': one of liver, hook"):
        open_dataset(f"coco:{images}/x.json?labelled=hok")


def test_names_of_the_bundle_and_the_nearest_one() -> None:
    strange: Any = partly("hook")
    strange.classes = (strange.classes[0], ClassSpec("graspr", (0, 0, 0), "instrument"))
    with pytest.raises(UsageError, match="graspr; did you mean grasper"):
        with_classes(strange, BUNDLE)
    with pytest.raises(UsageError, match="graspr; did you mean grasper"):
        map_by_name(strange.classes, BUNDLE, {}, ())


def test_cliprl_eval_reads_them(
    images: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "x.json").write_text(coco([{"segmentation": [SQUARE]}], ("instrument-shat",)))
    monkeypatch.setattr(sys, "argv", ["cliprl-eval", "--data", f"coco:{images}/x.json", "--out", str(images / "out")])
    assert run_app(evaluate.app, "cliprl-eval") == 2
    assert "instrument-shat; did you mean instrument-shaft?" in " ".join(capsys.readouterr().err.split())
