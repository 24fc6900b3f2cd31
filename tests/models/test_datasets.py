"""Data sets read from tiny copies of their published layouts, and from the real folder where it is there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, CliprlError, UsageError
from cliprl.models.data.augmentation.copy_paste import CopyPasteDataset
from cliprl.models.data.image_mask_dataset import LabelledDataset, SelectedFrames, sample_name, sequence_names
from cliprl.models.data.io import read_image
from cliprl.models.data.label_mapping import map_by_name, map_to_instrument, with_partial_labels
from cliprl.models.data.registry import DatasetContext, dataset_kinds, open_dataset
from cliprl.models.data.sample import IGNORE, INSTRUMENT, evenly_spaced
from cliprl.models.data.sets.cholecseg8k import CHOLECSEG_CLASSES as CHOLEC_CLASSES
from cliprl.models.data.sets.cholecseg8k import WATERSHED, CholecSeg8k
from cliprl.models.data.sets.corrupted_dataset import CorruptedDataset
from cliprl.models.data.sets.cutouts import Cutouts
from cliprl.models.data.sets.davinci import DavinciFrame
from cliprl.models.data.sets.endovis2015 import EndoVis2015, RoboticVideos
from cliprl.models.data.sets.endovis2017 import EndoVis2017
from cliprl.models.data.sets.endovis2018 import EndoVis2018
from cliprl.models.data.sets.folder import FolderSet
from cliprl.models.data.sets.no_instrument import NoInstrumentStills
from cliprl.models.data.sets.rendered import RenderedScenes, RenderedSpec
from cliprl.models.data.sets.vocalfolds import VocalFolds
from cliprl.models.data.splits import SPLITS, Split, check_disjoint, refuse_copies, select_sequences
from cliprl.pipeline.synthetic.classes import SCENE_CLASSES

Picture = NDArray[np.uint8]
# Written from the published tables, not from the package: id, colour.
SCENE_COLORS = [
    (0, 0, 0),
    (0, 255, 0),
    (0, 255, 255),
    (125, 255, 12),
    (255, 55, 0),
    (24, 55, 125),
    (187, 155, 25),
    (0, 255, 125),
    (255, 255, 125),
    (123, 15, 175),
    (124, 155, 5),
    (12, 255, 141),
]


def write(path: Path, image: Picture) -> Path:
    """Write RGB, RGBA or single-channel pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codes = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    bgr = cv2.cvtColor(image, codes[image.shape[2]]) if image.ndim == 3 else image
    assert cv2.imwrite(str(path), bgr)
    return path


def noise(height: int = 8, width: int = 12) -> Picture:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def strip(values: Sequence[object], rows: int = 8) -> Picture:
    """A mask whose columns hold the given values or colours."""
    return np.repeat(np.array(values, np.uint8)[None], rows, axis=0)


# -- EndoVis 2018 ------------------------------------------------------------------------------------------------------


def scene_2018(root: Path, release: str, sequence: str, *, listed: bool, rgba: bool, frames: int = 2) -> Path:
    place = root / release / sequence
    colors = [(*c, 255) if rgba else c for c in SCENE_COLORS]
    for n in range(frames):
        write(place / f"left_frames/frame{n:03d}.png", noise())
        write(place / f"labels/frame{n:03d}.png", strip(colors))
    # The ids are shuffled in the file, and id 10 goes by two names: only the id counts.
    order = [11, 3, 0, 1, 2, 10, 4, 5, 6, 7, 8, 9]
    entries = [
        {"name": f"class {i}", "color": [*SCENE_COLORS[i]] if listed else [*SCENE_COLORS[i], 255], "classid": i}
        for i in order
    ]
    (place / "labels.json").write_text(json.dumps(entries if listed else {"classes": entries}))
    return place


def test_endovis_2018_in_both_forms(tmp_path: Path) -> None:
    scene_2018(tmp_path, "miccai_challenge_2018_release_1", "seq_2", listed=True, rgba=False)
    scene_2018(tmp_path, "miccai_challenge_release_4", "seq_13", listed=False, rgba=True)
    scene_2018(tmp_path, "miccai_challenge_2018_test_data", "seq_2", listed=False, rgba=True)
    data = EndoVis2018(tmp_path)
    assert sequence_names(data) == ["seq_2", "test-seq_2", "seq_13"]
    assert len(data) == 6
    for sample in (data[i] for i in range(6)):
        assert (sample.labels == np.arange(12)).all()
        assert (sample.image == noise()).all()
    assert [spec.color for spec in data.classes] == SCENE_COLORS


def test_a_palette_of_the_sequence_s_own_is_followed(tmp_path: Path) -> None:
    place = scene_2018(tmp_path, "r1", "seq_1", listed=True, rgba=False)
    entries = json.loads((place / "labels.json").read_text())
    for entry in entries:
        entry["classid"] = 11 - entry["classid"]
    (place / "labels.json").write_text(json.dumps(entries))
    assert (EndoVis2018(tmp_path)[0].labels == 11 - np.arange(12)).all()
    (place / "labels.json").unlink()
    assert (EndoVis2018(tmp_path)[0].labels == np.arange(12)).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no list of classes"),
        ('{"a": 1}', "is no list"),
        ('[{"color": [1, 2, 3], "classid": 12}]', "class id 12"),
    ],
)
def test_a_bad_labels_json_is_named(tmp_path: Path, text: str, said: str) -> None:
    place = scene_2018(tmp_path, "r1", "seq_1", listed=True, rgba=False)
    (place / "labels.json").write_text(text)
    with pytest.raises(CliprlError, match=said):
        EndoVis2018(tmp_path)


def test_an_unknown_colour_is_named_with_its_file_and_count(tmp_path: Path) -> None:
    place = scene_2018(tmp_path, "r1", "seq_1", listed=True, rgba=False)
    mask = strip(SCENE_COLORS)
    mask[:3, 0], mask[0, 1] = (1, 2, 3), (9, 9, 9)
    path = write(place / "labels/frame001.png", mask)
    with pytest.raises(CliprlError) as error:
        EndoVis2018(tmp_path)[1]
    assert str(path) in str(error.value)
    assert "color (1, 2, 3), which is no class, on 3 pixels (and 1 other unknown colors)" in str(error.value)


def test_a_size_mismatch_is_named(tmp_path: Path) -> None:
    place = scene_2018(tmp_path, "r1", "seq_1", listed=True, rgba=False)
    write(place / "left_frames/frame000.png", noise(8, 16))
    with pytest.raises(CliprlError, match=r"frame000.png is 16x8 and its mask .*frame000.png is 12x8"):
        EndoVis2018(tmp_path)[0]


@pytest.mark.parametrize(("gone", "word"), [("labels", "mask"), ("left_frames", "image")])
def test_a_missing_partner_is_named(tmp_path: Path, gone: str, word: str) -> None:
    place = scene_2018(tmp_path, "r1", "seq_1", listed=True, rgba=False, frames=3)
    (place / gone / "frame001.png").unlink()
    with pytest.raises(CliprlError, match=rf"frame001.png has no {word}: copy"):
        EndoVis2018(tmp_path)


def test_a_broken_image_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + 50 * b"x")
    with pytest.raises(CliprlError, match="can't be read as an image"):
        read_image(tmp_path / "a.png")
    assert capfd.readouterr().err == ""


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    place = scene_2018(tmp_path, "r1", "seq_1", listed=True, rgba=False)
    (place / "labels/frame000.png").write_bytes(b"no picture")
    with pytest.raises(CliprlError, match=r"frame000.png can't be read as a mask"):
        EndoVis2018(tmp_path)[0]


@pytest.mark.parametrize("kind", sorted(set(dataset_kinds()) - {"folder", "rendered", "empty"}))
def test_an_empty_folder_is_no_data_set(kind: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must hold|give the file of"):
        open_dataset(f"{kind}:{tmp_path}")


# -- EndoVis 2017 ------------------------------------------------------------------------------------------------------

SHAFT, WRIST, CLASPER = 10, 20, 30


def release_2017(root: Path) -> Path:
    """One frame of 1920x1080, with a forceps, a needle driver and another instrument."""
    place = root / "instrument_dataset_1"
    frame = np.zeros((1080, 1920, 3), np.uint8)
    frame[28:1052, 320:1600] = 90
    write(place / "left_frames/frame000.png", frame)
    masks = {name: np.zeros((1080, 1920), np.uint8) for name in ("forceps", "driver", "other")}
    masks["forceps"][28:128, 320:420] = SHAFT
    masks["forceps"][28:128, 420:520] = WRIST
    masks["driver"][128:228, 320:420] = CLASPER
    masks["other"][228:328, 320:420] = 40
    folders = ("Left_Prograsp_Forceps_labels", "Large_Needle_Driver_Right_labels", "Other_labels")
    for folder, mask in zip(folders, masks.values(), strict=True):
        write(place / "ground_truth" / folder / "frame000.png", mask)
    return place


@pytest.mark.parametrize(
    ("task", "expected"), [("binary", [1, 1, 1, 0]), ("parts", [1, 2, 3, 0]), ("types", [2, 2, 3, 7])]
)
def test_endovis_2017_as_published(tmp_path: Path, task: str, expected: list[int]) -> None:
    release_2017(tmp_path)
    sample = EndoVis2017(tmp_path, task)[0]
    assert sample.image.shape == (1024, 1280, 3)
    assert (sample.image == 90).all()  # the crop leaves no border
    assert sample.labels.shape == (1024, 1280)
    assert [sample.labels[y, x] for y, x in ((0, 0), (0, 100), (100, 0), (200, 0))] == expected
    assert sample.labels[99, 99] == expected[0]
    assert sample.labels[300:].max() == 0
    assert sample.sequence == "instrument_dataset_1"


@pytest.mark.parametrize("task", ["binary", "parts", "types"])
def test_the_ternausnet_copy_of_endovis_2017(tmp_path: Path, task: str) -> None:
    place = tmp_path / "cropped_train/instrument_dataset_4"
    cv2.imwrite(str(write(place / "images/x.png", noise())).replace("x.png", "frame000.jpg"), noise())
    (place / "images/x.png").unlink()
    for folder, factor, ids in (("binary", 255, 2), ("parts", 85, 4), ("instruments", 32, 8)):
        write(place / f"{folder}_masks/frame000.png", strip([factor * (i % ids) for i in range(12)]))
    data = EndoVis2017(tmp_path, task)
    assert (data[0].labels == np.arange(12) % len(data.classes)).all()


def test_files_of_macos_beside_the_data_change_nothing(tmp_path: Path) -> None:
    place = release_2017(tmp_path)
    shutil.copytree(place, tmp_path / "__MACOSX" / place.name, ignore=shutil.ignore_patterns("*_labels", "*.png"))
    for path in (place / "ground_truth/Other_labels", *tmp_path.glob("**/left_frames/frame000.png")):
        path.with_name(f"._{path.name}").write_bytes(b"x")
    (tmp_path / "__MACOSX" / place.name / "left_frames/._frame000.png").write_bytes(b"x")
    assert len(EndoVis2017(tmp_path)) == 1


def test_a_second_copy_of_a_sequence_is_refused(tmp_path: Path) -> None:
    place = release_2017(tmp_path / "release")
    copy = tmp_path / "cropped_train" / place.name
    write(copy / "images/frame000.bmp", noise()).rename(copy / "images/frame000.jpg")
    write(copy / "parts_masks/frame000.png", strip([0] * 12))
    with pytest.raises(
        UsageError, match=r"frame000\.png are one frame of instrument_dataset_1, which would count twice"
    ):
        EndoVis2017(tmp_path)


def test_endovis_2017_bad_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no task 'colours': one of binary, parts, types"):
        EndoVis2017(tmp_path, "colours")
    place = release_2017(tmp_path)
    truth = place / "ground_truth"
    (truth / "Other_labels").rename(truth / "Spoon_labels")
    with pytest.raises(CliprlError, match="'Spoon_labels' names no instrument"):
        EndoVis2017(tmp_path)[0]
    (truth / "Spoon_labels/frame000.png").unlink()
    with pytest.raises(CliprlError, match=r"left_frames/frame000.png has no mask"):
        EndoVis2017(tmp_path)
    shutil.rmtree(truth)
    with pytest.raises(CliprlError, match="no ground_truth"):
        EndoVis2017(tmp_path)


# -- CholecSeg8k -------------------------------------------------------------------------------------------------------


def test_cholecseg8k(tmp_path: Path) -> None:
    published = [50, 11, 21, 13, 12, 31, 23, 24, 25, 32, 22, 33, 5]
    columns = [(v, v, v, 255) for v in (*published, 0, 255)]
    for clip, frames in (("video01_00080", (80, 81, 100)), ("video01_00160", (160,)), ("video37_00848", (9, 10))):
        for n in frames:
            stem = tmp_path / clip[:7] / clip / f"frame_{n}_endo"
            write(stem.with_suffix(".png"), noise(8, 15))
            write(stem.with_name(f"{stem.name}_watershed_mask.png"), strip(columns))
            write(stem.with_name(f"{stem.name}_mask.png"), noise(8, 15))  # other masks that lie there too
            write(stem.with_name(f"{stem.name}_color_mask.png"), noise(8, 15))
    data = CholecSeg8k(tmp_path)
    assert sequence_names(data) == ["video01", "video37"]
    assert [data.clip(i) for i in range(len(data))] == ["video01_00080"] * 3 + ["video01_00160"] + ["video37_00848"] * 2
    assert (data[0].labels == [*range(13), IGNORE, IGNORE]).all()
    assert [pair.image.name for pair in data.pairs[-2:]] == ["frame_9_endo.png", "frame_10_endo.png"]
    assert len(CHOLEC_CLASSES) == len(WATERSHED) == 13
    pair = data.pairs[0]
    write(pair.masks[0], strip([(50, 50, 50)] * 14 + [(77, 77, 77)]))
    with pytest.raises(CliprlError, match="value 77, which is no class, on 8 pixels"):
        data[0]


# -- anyone's folder ---------------------------------------------------------------------------------------------------

CLASSES_TOML = """
ignore = [255, [255, 255, 255]]
[[classes]]
name = "background"
kind = "background"
color = [0, 0, 0]
[[classes]]
name = "grasper"
kind = "instrument"
color = [170, 255, 0]
value = 7
prompts = ["a grasper", "forceps"]
"""


def folder_set(root: Path, toml: str = CLASSES_TOML) -> Path:
    (root / "classes.toml").write_text(toml)
    write(root / "images/one/frame_2.jpg", noise(8, 3))
    write(root / "masks/one/frame_2.png", strip([0, 7, 255]))
    write(root / "images/one/frame_10.jpg", noise(8, 3))
    write(root / "masks/one/frame_10.png", strip([(0, 0, 0), (170, 255, 0), (255, 255, 255)]))
    write(root / "images/single.png", noise(8, 3))
    write(root / "masks/single.png", strip([7, 0, 0]))
    return root


def test_a_folder_of_one_s_own(tmp_path: Path) -> None:
    data = FolderSet(folder_set(tmp_path))
    assert data.classes[1] == ClassSpec("grasper", (170, 255, 0), "instrument", ("a grasper", "forceps"))
    assert sequence_names(data) == [tmp_path.name, "one"]
    assert [pair.image.name for pair in data.pairs] == ["single.png", "frame_2.jpg", "frame_10.jpg"]
    for index, expected in enumerate(([1, 0, 0], [0, 1, IGNORE], [0, 1, IGNORE])):
        assert (data[index].labels == expected).all()
    assert data.clip(1) == data.clip(2)
    apart = FolderSet(folder_set(tmp_path, "consecutive = false\n" + CLASSES_TOML))
    assert apart.clip(1) != apart.clip(2)


def test_indices_of_a_palette_are_read_not_its_colours(tmp_path: Path) -> None:
    import av

    folder_set(tmp_path)
    palette = np.zeros((256, 4), np.uint8)
    palette[7] = (255, 1, 2, 3)
    image = av.VideoFrame.from_ndarray((strip([7, 0, 7, 0] * 8, 16), palette), format="pal8")
    with av.open(str(tmp_path / "masks/single.png"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "pal8"
        for packet in [*stream.encode(image), *stream.encode()]:
            container.mux(packet)
    write(tmp_path / "images/single.png", noise(16, 32))
    assert (FolderSet(tmp_path)[0].labels == [1, 0, 1, 0] * 8).all()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[[classes]]", "[[klasses]]", "unknown key 'klasses'"),
        ("value = 7", "valeu = 7", "unknown key 'classes.1.valeu'"),
        ("value = 7", "value = 0", "two classes one value"),
        ("[170, 255, 0]", "[0, 0, 0]", "two classes one color"),
        ("[170, 255, 0]", "[170, 255]", "classes.1.color.2: Field required"),
        ('kind = "instrument"', 'kind = "tool"', "kind.*, not 'tool'"),
        ('kind = "instrument"', "", "classes.1.kind: Field required"),
        ("value = 7", "value = 700", "classes.1.value.*, not '700'"),
        ("value = 7", "value = [7]", "classes.1.value"),
        ('["a grasper", "forceps"]', '"ab"', "classes.1.prompts.*, not 'ab'"),
        ("ignore = [", 'ignore = ["1", ', "ignore.0.*, not '1'"),
        ("ignore = [", 'consecutive = "no"\nignore = [', "consecutive.*, not 'no'"),
        ("ignore", "ignore = ", "is not TOML"),
    ],
)
def test_a_bad_classes_toml_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        FolderSet(folder_set(tmp_path, CLASSES_TOML.replace(old, new)))
    assert str(tmp_path / "classes.toml") in str(error.value)


def test_a_classes_toml_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = folder_set(tmp_path) / "classes.toml"
    path.write_bytes(CLASSES_TOML.replace("\n", "\r\n").encode("utf-8-sig"))  # as Windows writes it
    assert FolderSet(tmp_path).classes
    path.write_text(CLASSES_TOML, encoding="utf-16")
    with pytest.raises(UsageError, match="is not in UTF-8: save it in UTF-8, not in UTF-16"):
        FolderSet(tmp_path)


@pytest.mark.parametrize("channels", [3, 4])
def test_gray_masks_in_several_channels_hold_values(tmp_path: Path, channels: int) -> None:
    folder_set(tmp_path)
    mask = np.repeat(strip([7, 0, 0])[..., None], channels, axis=2)
    mask[..., 3:] = 255
    write(tmp_path / "masks/single.png", mask)
    assert (FolderSet(tmp_path)[0].labels == [1, 0, 0]).all()


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_masks_that_were_compressed_with_loss_are_refused(tmp_path: Path, suffix: str) -> None:
    folder_set(tmp_path)
    mask = str(tmp_path / f"masks/single.{suffix}")
    assert cv2.imwrite(mask, strip([7, 0, 0]), [cv2.IMWRITE_WEBP_QUALITY, 90])
    (tmp_path / "masks/single.png").unlink()
    with pytest.raises(CliprlError, match=rf"single\.{suffix} is a JPEG or a lossy WebP, which changes the values"):
        FolderSet(tmp_path)[0]


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    folder_set(tmp_path)
    write(tmp_path / "images/single.bmp", noise(8, 3))
    with pytest.raises(CliprlError, match=r"single\.bmp and .*single\.png have one name"):
        FolderSet(tmp_path)


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    folder_set(tmp_path)
    (tmp_path / "classes.toml").unlink()
    with pytest.raises(UsageError, match=r"classes.toml is missing"):
        FolderSet(tmp_path)
    with pytest.raises(UsageError, match="data set 'folder' is not of the form KIND:FOLDER"):
        open_dataset("folder")
    with pytest.raises(UsageError, match="is no folder"):
        open_dataset(f"folder:{tmp_path / 'nowhere'}")


# -- rendered scenes ---------------------------------------------------------------------------------------------------


def test_rendered_scenes(tmp_path: Path) -> None:
    context = DatasetContext(height=64, width=80, workers=1)
    data = open_dataset(f"rendered:{tmp_path}?seeds=900000-900001&frames=2", context=context)
    assert len(data) == 4
    assert [data.sequence(i) for i in range(4)] == [data[i].sequence for i in range(4)]
    assert sequence_names(data) == ["scene 900000", "scene 900001"]
    assert data[3].labels.max() < len(data.classes)


# -- splits ------------------------------------------------------------------------------------------------------------


class Named:
    """A data set of which only the sequences matter."""

    classes = SCENE_CLASSES

    def __init__(self, name: str, *sequences: str) -> None:
        self.name, self.names = name, sequences

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> object:
        raise AssertionError("a split reads no picture")

    def sequence(self, index: int) -> str:
        return self.names[index]

    def clip(self, index: int) -> str:
        return self.names[index]


def named(name: str, *sequences: str) -> LabelledDataset:
    return Named(name, *sequences)  # type: ignore[return-value]


def test_published_splits() -> None:
    a, b = SPLITS["endovis2018"]["A"], SPLITS["endovis2018"]["B"]
    assert a.test == ("seq_2", "seq_5", "seq_9", "seq_15")
    assert (len(a.train), len(b.train)) == (11, 15)
    assert "seq_8" not in b.train
    assert b.test == ("test-seq_1", "test-seq_2", "test-seq_3", "test-seq_4")
    folds = [SPLITS["endovis2017"][f"fold{i}"] for i in range(4)]
    assert [tuple(int(s[-1]) for s in f.test) for f in folds] == [(1, 3), (2, 5), (4, 8), (6, 7)]
    assert all(len(f.train) == 6 for f in folds)
    assert SPLITS["cholecseg8k"]["videos"].test == ("video37", "video48", "video55")
    assert len(SPLITS["cholecseg8k"]["videos"].train) == 14


def test_a_sequence_on_both_sides_is_an_error() -> None:
    with pytest.raises(UsageError, match="seq_2 would be trained on and tested on"):
        Split(("seq_1", "seq_2"), ("seq_2",))
    check_disjoint([named("endovis2018", "seq_1")], [named("endovis2018", "seq_2"), named("other", "seq_1")])
    with pytest.raises(UsageError, match="endovis2018/seq_1 would be trained on"):
        check_disjoint([named("endovis2018", "seq_3", "seq_1")], [named("endovis2018", "seq_1")])


def test_a_copy_under_another_name_is_found_out(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    images[2] = (3, 4, 5)
    for folder, numbers in (("mine", (0, 2)), ("other", (1, 2)), ("mine again", (1, 0))):
        (tmp_path / folder).mkdir()
        for place, number in enumerate(numbers):
            cv2.imwrite(str(tmp_path / folder / f"{folder} {place}.png"), images[number])
    mine, other, again = (NoInstrumentStills(tmp_path / name) for name in ("mine", "other", "mine again"))
    views = [CorruptedDataset(with_partial_labels(SelectedFrames.join([again]), other.classes), 3, (8, 8))]
    refuse_copies([mine], [other])  # the image of one color is no copy
    with pytest.raises(UsageError, match=r"mine again 1.png is a copy of .*mine 0.png, and trained on and tested on"):
        refuse_copies([mine], views)
    with pytest.raises(UsageError, match=r"mine 0.png is trained on and tested on"):
        refuse_copies([mine], [other, mine])
    composed = CopyPasteDataset(
        views[0], RenderedScenes(RenderedSpec(0, 0, 1, 96, 120), tmp_path, 0, lambda *_: None), 0
    )
    with pytest.raises(UsageError, match=r"mine 0.png is a copy"):
        refuse_copies([composed], [mine])


def test_links_to_nothing_and_pipes_are_no_copies(tmp_path: Path) -> None:
    """The error of reading names them, and only where they are read; a pipe would hold the comparison up for ever."""
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "link.png").symlink_to(tmp_path / "missing")
        os.mkfifo(tmp_path / name / "pipe.png")
    mine, other = (NoInstrumentStills(tmp_path / name) for name in ("mine", "other"))
    assert len(mine) == len(other) == 2
    refuse_copies([mine], [other])


def test_frames_cut_out_of_a_test_sequence_are_found_out() -> None:
    cutouts = named("cutouts", "endovis2018/seq_10", "endovis2018/seq_4")
    with pytest.raises(UsageError, match="endovis2018/seq_4"):
        check_disjoint([cutouts], [named("endovis2018", "seq_4")])
    check_disjoint([cutouts], [named("endovis2018", "test-seq_4")])  # the test re-uses the number for another recording


def test_choosing_a_part() -> None:
    data = named("endovis2018", *(f"seq_{n}" for n in range(1, 17) if n != 8))
    assert sequence_names(select_sequences(data, "A")) == ["seq_2", "seq_5", "seq_9", "seq_15"]
    assert len(select_sequences(data, "A:train")) == 11
    assert sequence_names(select_sequences(data, "seq_3,seq_1")) == ["seq_1", "seq_3"]
    for split, said in (("C", "no split 'C' of endovis2018: name a split"), ("A:val", "no side 'val'")):
        with pytest.raises(UsageError, match=said):
            select_sequences(data, split)


def test_a_split_that_is_not_whole_is_refused() -> None:
    with pytest.raises(UsageError, match="asks for seq_9, seq_15, which this copy of endovis2018 has not"):
        select_sequences(named("endovis2018", "seq_2", "seq_5", "seq_6"), "A")


# -- from one list of classes to another -------------------------------------------------------------------------------


def specs(*names: str) -> tuple[ClassSpec, ...]:
    kinds = {"b": "background", "t": "tissue", "i": "instrument"}
    return tuple(ClassSpec(name, (i, i, i), kinds[name[0]]) for i, name in enumerate(names))


def test_evenly_spaced_indices_keep_both_ends() -> None:
    assert [evenly_spaced(10, count) for count in (1, 2, 4)] == [[0], [0, 9], [0, 3, 6, 9]]
    assert [evenly_spaced(length, 5) for length in (0, 1, 3)] == [[], [0], [0, 1, 2]]
    for length in range(1, 60):
        chosen = evenly_spaced(length, 24)
        assert sorted(set(chosen)) == chosen
        assert len(chosen) == min(length, 24)
        assert chosen[-1] == length - 1


def test_the_union_of_instruments() -> None:
    mapped = map_to_instrument(specs("b", "t", "i1"), specs("b", "i1", "i2", "t"), ())
    assert mapped.truth[[0, 1, 2, IGNORE, INSTRUMENT]].tolist() == [0, 0, 1, IGNORE, 1]
    assert mapped.predicted[:4].tolist() == [0, 1, 1, 0]
    assert map_to_instrument(specs("b", "t", "i1"), specs("b", "i1"), ("t",)).truth[:3].tolist() == [0, IGNORE, 1]


def test_classes_by_name_and_by_map() -> None:
    truth, found = specs("b", "i-shaft", "i-head"), specs("b", "i-tip", "i-shaft", "t")
    mapped = map_by_name(truth, found, {"i-tip": "i-head"}, ())
    assert mapped.classes == truth
    assert mapped.predicted[:4].tolist() == [0, 2, 1, 0]
    assert mapped.truth[[0, 1, 2, IGNORE]].tolist() == [0, 1, 2, IGNORE]
    with pytest.raises(UsageError, match="no class for i-head"):
        map_by_name(truth, found, {}, ())
    assert map_by_name(truth, found, {}, ("i-head",)).truth[2] == IGNORE
    with pytest.raises(UsageError, match="class map 'i-tip=i-toe'"):
        map_by_name(truth, found, {"i-tip": "i-toe"}, ())
    with pytest.raises(UsageError, match="no class 'x' to ignore"):
        map_to_instrument(truth, found, ("x",))


def test_instrument_of_an_unknown_part_takes_any_part() -> None:
    parts = [ClassSpec(name, (i, 0, 0), "instrument") for i, name in enumerate(("shaft", "tip", "instrument"))]
    wall, liver = (
        ClassSpec(name, (9, 9, i), kind) for i, (name, kind) in enumerate((("wall", "background"), ("liver", "tissue")))
    )
    truth, found = (wall, parts[0], parts[2]), (wall, parts[0], parts[1], liver)
    mapped = map_by_name(truth, found, {}, ())
    labels = np.arange(4, dtype=np.uint8)
    # A part that the truth does not name counts as instrument; where the truth is one of an unknown part, every part does.
    for code, expected in ((0, [0, 1, 2, 0]), (1, [0, 1, 2, 0]), (2, [0, 2, 2, 0])):
        assert mapped.scored(labels, np.full(4, code, np.uint8)).tolist() == expected
    assert mapped.unsure_at(np.array([0, 1, 2, IGNORE], np.uint8)).tolist() == [False, False, True, False]
    assert map_by_name(truth, found, {"tip": "instrument"}, ()).unsure is None
    assert map_by_name(truth, (wall, *parts), {}, ()).unsure is None
    with pytest.raises(UsageError, match="no class for instrument"):
        map_by_name(truth, (wall, ClassSpec("shaft", (1, 1, 1), "tissue")), {}, ())


# -- the real folder ---------------------------------------------------------------------------------------------------


def test_endovis_2015(data_dir: Path) -> None:
    data = EndoVis2015(data_dir / "endovis2015")
    assert len(data) == 370 + 375 + 40 + 40
    assert sequence_names(data) == ["D1", "D2", "OP1", "OP3"]
    rigid = data[745]
    assert rigid.image.shape == (480, 640, 3)
    assert set(np.unique(rigid.labels)) == {0, 1, 2}
    assert data.clip(745) != data.clip(746)
    assert sequence_names(select_sequences(data, "both")) == ["D2", "OP3"]


def test_endovis_2015_video_and_labels_fit(data_dir: Path) -> None:
    data = RoboticVideos(data_dir / "endovis2015/robotic")
    sample = data[200]
    assert sample.image.shape == (576, 720, 3)
    assert data.clip(0) == data.clip(369) == "D1"
    # Steel is greyer than tissue: if picture and mask belong together, the instrument's saturation is lower.
    saturation = cv2.cvtColor(sample.image, cv2.COLOR_RGB2HSV)[..., 1]
    assert saturation[sample.labels > 0].mean() < 0.7 * saturation[sample.labels == 0].mean()


def test_vocal_folds(data_dir: Path) -> None:
    data = VocalFolds(data_dir / "vocalfolds")
    assert [sum(data.sequence(i) == s for i in range(len(data))) for s in sequence_names(data)] == [26, 44, 122, 186]
    assert data[100].image.shape == (512, 512, 3)
    assert sequence_names(select_sequences(data, "without-seq7")) == ["seq7"]


def test_cutouts(data_dir: Path) -> None:
    data = Cutouts(data_dir / "cutouts_endovis2018")
    assert len(data) == 24
    assert all(name.startswith("endovis2018/seq_") for name in sequence_names(data))
    for i in (0, 10, 23):  # each picture lies in the folder of a type that its mask has
        assert int(data.pairs[i].image.parent.name[0]) in data[i].labels
    with pytest.raises(UsageError, match="seq_4"):
        check_disjoint([data], [named("endovis2018", "seq_4")])


def test_davinci_frame(data_dir: Path) -> None:
    sample = DavinciFrame(data_dir / "davinci_frame")[0]
    assert sample.labels.shape == (1024, 1280)
    assert set(np.unique(sample.labels)) == {0, 1, 2, 3}
    assert sample.image[:, :10].max() > 30  # the crop's left edge shows tissue


def test_bad_videos(tmp_path: Path) -> None:
    place = tmp_path / "robotic/D9"
    place.mkdir(parents=True)
    (place / "video.avi").write_bytes(b"no video")
    with pytest.raises(CliprlError, match=r"no labels.npz beside it"):
        EndoVis2015(tmp_path)
    np.savez(place / "labels.npz", instance=np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(CliprlError, match="holds no array 'parts'"):
        EndoVis2015(tmp_path)
    np.savez(place / "labels.npz", parts=np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(CliprlError, match="can't be read as video"):
        EndoVis2015(tmp_path)[0]


def test_single_frames_of_an_operation_are_named_by_their_files(tmp_path: Path) -> None:
    for folder, name in (("Raw", "img_07_raw"), ("Masks", "img_07_class")):
        (tmp_path / "rigid/OP1" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "rigid/OP1" / folder / f"{name}.png"), np.zeros((6, 8), np.uint8))
    assert sample_name(open_dataset(f"endovis2015:{tmp_path}?sequences=OP1"), 0) == "img_07_raw.png"
