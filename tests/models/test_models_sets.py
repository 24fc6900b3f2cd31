"""Training on sets of one's own: how they are described, which classes come of them, and what is refused before a step."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import normalize

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import make_clip
from PIL import Image as PillowImage
from stand_in import stand_in
from tiny import NETWORK

from cliprl.engines import CliprlError, UsageError, open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.cli import train as cli
from cliprl.models.config.config import Recipe
from cliprl.models.config.load import checkpoint_settings, load_recipe
from cliprl.models.data.batch_loader import pair_batch
from cliprl.models.data.dataset_spec import DatasetSpec
from cliprl.models.data.image_mask_dataset import sequence_names
from cliprl.models.data.registry import DatasetContext, open_dataset, portable_lines
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT
from cliprl.models.data.sets.corrupted_dataset import CorruptedDataset
from cliprl.models.data.sets.no_instrument import NoInstrumentVideo
from cliprl.models.data.sets.rendered import RenderedScenes, RenderedSpec
from cliprl.models.data.splits import check_disjoint
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.training.run_datasets import TEST_OPTIONS, TRAIN_OPTIONS, RunDatasets, open_run_datasets
from cliprl.models.training.stages.contrastive import Contrastive

TINY = (
    """
name = "tiny"
save_every = 1
"""
    + NETWORK
    + """[data]
height = 64
width = 80
workers = 1
[contrastive]
steps = 0
[supervised]
steps = 2
batch = 2
[reinforcement]
steps = 2
batch = 2
[curriculum.reinforcement]
unroll = [2, 2]
"""
)
CLASSES = (("wall", "background", 0), ("duct", "tissue", 7), ("hook", "instrument", 9))


def make_set(
    folder: Path, classes: tuple[tuple[str, str, int], ...] = CLASSES, size: tuple[int, int] = (60, 80)
) -> Path:
    """Two sequences, a and b, of two frames in which every class is a stripe."""
    lines = [
        f'[[classes]]\nname = "{name}"\nkind = "{kind}"\ncolor = [{i}, 0, 0]\nvalue = {value}\nprompts = ["a {name}"]'
        for i, (name, kind, value) in enumerate(classes)
    ]
    for part in ("images/a", "images/b", "masks/a", "masks/b"):
        (folder / part).mkdir(parents=True)
    (folder / "classes.toml").write_text("\n".join(lines))
    stripes = np.array([value for *_, value in classes], np.uint8).repeat(size[1] // len(classes) + 1)[: size[1]]
    rng = np.random.default_rng(0)
    for name in ("a/1", "a/2", "b/1", "b/2"):
        cv2.imwrite(str(folder / f"images/{name}.png"), rng.integers(0, 255, (*size, 3), np.uint8))
        cv2.imwrite(str(folder / f"masks/{name}.png"), stripes[None].repeat(size[0], 0))
    return folder


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return make_set(tmp_path / "mine")


def recipe_of(folder: Path, **lists: list[str]) -> Recipe:
    path = folder / "tiny.toml"
    path.write_text(TINY)
    return load_recipe(path, [f"data.{key}={value}" for key, value in lists.items()])


def opened(folder: Path, **lists: list[str]) -> RunDatasets:
    return open_run_datasets(recipe_of(folder, **lists), folder, lambda done, total: None)


@given(
    kind=st.sampled_from(["folder", "endovis2018"]),
    place=st.text("abc/._- ", max_size=9),
    options=st.dictionaries(
        st.text("abc", min_size=1, max_size=3), st.text("xyz,-09", min_size=1, max_size=4), max_size=3
    ),
)
def test_a_line_is_read_back_as_it_was_put_together(kind: str, place: str, options: dict[str, str]) -> None:
    tail = "&".join(f"{key}={value}" for key, value in options.items())
    spec = DatasetSpec.parse(f"{kind}:{place}?{tail}" if tail else f"{kind}:{place}")
    assert (spec.kind, spec.path, dict(spec.options)) == (kind, place, options)
    assert DatasetSpec.parse(spec.without_path()).options == options


def test_scenes_need_no_folder() -> None:
    spec = DatasetSpec.parse("rendered:seeds=0-299&frames=6")
    assert (spec.kind, spec.path, spec.options) == ("rendered", "", {"seeds": "0-299", "frames": "6"})


@pytest.mark.parametrize("text", ["folder", "folder:/x?sequences", "folder:/x?share=", "folder:/x?a=1&a=2"])
def test_a_line_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"data set '{text}'")):
        DatasetSpec.parse(text)


def test_lines_without_folders_keep_sets_apart(mine: Path, tmp_path: Path) -> None:
    """Where they did not, one of two scores was lost, and a checkpoint of other data was taken for that of these."""
    lines = ["folder:/a/mine?share=2", "folder:b/mine?share=2", "folder:other", "endovis2015:/x?sequences=D1"]
    portable = ["folder:mine?share=2", "folder:mine?share=2 (2)", "folder:other", "endovis2015:sequences=D1"]
    assert portable_lines(lines) == portable
    other = shutil.copytree(mine, tmp_path / "other")
    recipes = [recipe_of(tmp_path, train=[f"folder:{place}"]) for place in (mine, other)]
    first, second = (checkpoint_settings(recipe, "supervised")["data.train"] for recipe in recipes)
    assert (first, second) == (["folder:mine"], ["folder:other"])
    tests = [f"folder:{mine}?sequences=b", f"folder:{other}?sequences=b"]
    sets = opened(tmp_path, train=[f"folder:{mine}?sequences=a"], test=tests)
    assert [test.title for test in sets.tests] == ["folder:mine?sequences=b", "folder:other?sequences=b"]


def test_classes_are_the_first_data_sets_and_match_by_name(mine: Path, tmp_path: Path) -> None:
    """A second set names the same classes in another order and with other values."""
    other = make_set(tmp_path / "other", (("wall", "background", 3), ("hook", "instrument", 4), ("duct", "tissue", 5)))
    sets = opened(tmp_path, train=[f"folder:{mine}?sequences=a", f"folder:{other}?share=3"])
    assert [spec.name for spec in sets.classes] == ["wall", "duct", "hook"]
    first, second = sets.train.datasets
    assert list(sets.train.shares) == [1.0, 3.0]
    assert sequence_names(first) == ["a"]
    assert [int(first[0].labels[0, x]) for x in (5, 40, 75)] == [0, 1, 2]
    assert [int(second[0].labels[0, x]) for x in (5, 40, 75)] == [0, 2, 1]
    assert list(sets.policy.datasets[0][0].labels[0]) == list(first[0].labels[0])


def test_data_set_may_label_instruments_only_or_omit_a_class(mine: Path, tmp_path: Path) -> None:
    other = make_set(
        tmp_path / "other", (("sky", "background", 0), ("needle", "instrument", 1), ("glare", "tissue", 2))
    )
    sets = opened(
        tmp_path,
        train=[f"folder:{mine}?ignore=duct", f"folder:{other}?labels=instrument&ignore=glare"],
        policy=[f"folder:{other}?labels=instrument"],
    )
    assert [spec.name for spec in sets.classes] == ["wall", "hook"]
    labels = [[int(data[0].labels[0, x]) for x in (5, 40, 75)] for data in sets.train.datasets]
    assert labels == [[0, IGNORE, 1], [NOT_INSTRUMENT, INSTRUMENT, IGNORE]]
    assert int(sets.policy.datasets[0][0].labels[0, 75]) == NOT_INSTRUMENT


def test_partial_labels_may_keep_classes_under_other_names(mine: Path, tmp_path: Path) -> None:
    other = make_set(
        tmp_path / "other", (("sky", "background", 0), ("jaw", "instrument", 1), ("pole", "instrument", 2))
    )
    sets = opened(tmp_path, train=[f"folder:{mine}", f"folder:{other}?labels=instrument&map=jaw:hook"])
    assert [spec.name for spec in sets.classes] == ["wall", "duct", "hook"]
    assert [int(sets.train.datasets[1][0].labels[0, x]) for x in (5, 40, 75)] == [NOT_INSTRUMENT, 2, INSTRUMENT]


def test_pairs_are_frames_of_one_clip(mine: Path, tmp_path: Path) -> None:
    (mixture,) = {id(m): m for m in (opened(tmp_path, train=[f"folder:{mine}"]).policy,)}.values()
    assert pair_batch(mixture, 2, (64, 96), 0, 0, 1.0).labels.shape == (2, 16, 24)


def test_a_test_set_may_be_seen_through_a_failing_camera(mine: Path, tmp_path: Path) -> None:
    lines = [f"folder:{mine}?sequences=b&severity=4", f"folder:{mine}?sequences=b"]
    worse, clean = (test.data for test in opened(tmp_path, train=[f"folder:{mine}?sequences=a"], test=lines).tests)
    assert isinstance(worse, CorruptedDataset)
    assert worse[0].image.shape == (64, 96, 3)
    assert worse[0].labels.shape == (64, 96)
    same = cv2.resize(clean[0].image, (96, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(worse[0].image.astype(int) - same).mean() > 15
    assert np.array_equal(worse[1].image, worse[1].image)


def test_labels_of_a_failing_camera_lie_on_the_image(mine: Path) -> None:
    # Of 720 x 576, as EndoVis: labels taken at corners lay half a pixel right of and below what they label.
    labels = np.zeros((576, 720), np.uint8)
    for top, left in ((100, 90), (331, 402), (17, 600), (250, 255)):
        labels[top : top + 83, left : left + 97] = 1
    for folder, picture in (("images", 255 * np.repeat(labels[..., None], 3, 2)), ("masks", 7 + 2 * labels)):
        cv2.imwrite(str(mine / f"{folder}/b/1.png"), picture)
    seen = CorruptedDataset(open_dataset(f"folder:{mine}?sequences=b"), 0, (256, 320))[0]
    assert np.count_nonzero((seen.image[..., 0] > 127) != (seen.labels == 2)) < 60


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        ("folder:{mine}", "folder:{mine}?sequences=b", "mine/b would be trained on and tested on"),
        ("folder:{mine}?sequences=c", "", "asks for c, which this copy of mine has not: it has a, b"),
        ("folder:{mine}?sequences=a&split=A", "", "has sequences and split: give one of them"),
        ("folder:{mine}?split=A", "", "no split 'A:train' of mine"),
        (
            "folder:{mine}?colour=red",
            "",
            "has no option 'colour': one of sequences, split, fold, every, share, labels, ignore, map",
        ),
        ("folder:{mine}?share=0", "", "are all 0"),
        ("folder:{mine}?share=many", "", "share is 'many', and must be a number"),
        ("folder:{mine}?share=inf", "", "share is 'inf', and must be a number from 0 to"),
        ("folder:{mine}?sequences=a", "folder:{mine}?sequences=b&severity=7", "severity is '7', and must be .* 0 to 5"),
        ("folder:{mine}?labels=none", "", "labels is 'none', and may only be 'instrument'"),
        ("folder:{mine}?labels=instrument", "", "one must give the classes"),
        ("folder:{mine}?map=hook:duct", "", "give map=CLASS:TRAINED,CLASS:TRAINED together with labels=instrument"),
        ("rendered:seeds=0-0&labels=instrument&map=hook", "", "map is 'hook': give map=CLASS:TRAINED"),
        ("folder:{mine}?ignore=spoon", "", "has no class 'spoon' to ignore"),
        ("film:{mine}", "", "no data set 'film:.*: give KIND:FOLDER"),
        ("folder:{mine}/none", "", "is no folder: give the folder of the folder set"),
        ("rendered:seeds=9-3", "", "give seeds=FIRST-LAST"),
        ("empty:{mine}", "", "is no file: give the file of the empty set"),
        ("folder:{mine}?ignore=duct&sequences=a", "folder:{mine}?sequences=b", "no class for duct"),
    ],
)
def test_misuse_is_refused_before_a_step_is_made(mine: Path, tmp_path: Path, train: str, test: str, said: str) -> None:
    lists = {"train": [train.format(mine=mine)], "test": [test.format(mine=mine)] if test else []}
    with pytest.raises(UsageError, match=said) as error:
        opened(tmp_path, **lists)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "lists",
    [{"train": ["rendered:seeds=0-99", "folder:nowhere"]}, {"test": ["folder:nowhere"]}, {"policy": ["foldr:mine"]}],
)
def test_wrong_lines_are_named_before_scenes_are_rendered(mine: Path, lists: dict[str, list[str]]) -> None:
    with pytest.raises(UsageError, match=r"nowhere|did you mean folder"):
        opened(mine, **{"train": ["rendered:seeds=0-99"], "test": [], **lists})
    assert not (mine / "scenes").exists()


def test_data_without_frames_is_refused(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = tmp_path / "none.mkv"
    with wave.open(str(video), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(800))
    lines = [f"folder:{mine}", f"empty:{video}?labels=instrument"]
    with pytest.raises(CliprlError, match=r"none\.mkv can't be read as video"):
        opened(tmp_path, train=lines)
    monkeypatch.setattr(NoInstrumentVideo, "_frames", [])
    with pytest.raises(UsageError, match=r"data\.train: 'none' holds no frames: name others"):
        opened(tmp_path, train=lines)


def test_one_scene_has_no_contrastive_stage(tmp_path: Path) -> None:
    recipe = load_recipe(tmp_path / "tiny.toml" if recipe_of(tmp_path) else "", ["contrastive.steps=1"])
    scene = RenderedScenes.__new__(RenderedScenes)
    scene.which, scene._files = RenderedSpec(7, 1, 4, 64, 96), [tmp_path / "000007.npz"]
    with pytest.raises(UsageError, match="captions of 1 scene, and needs 2"):
        Contrastive(ClipSegmenter(recipe.network), [scene], recipe)


def test_pictures_without_captions_have_no_contrastive_stage(mine: Path, tmp_path: Path) -> None:
    recipe = load_recipe(
        tmp_path / "tiny.toml" if recipe_of(tmp_path) else "", [f'data.train=["folder:{mine}"]', "contrastive.steps=1"]
    )
    with pytest.raises(UsageError, match="no training set has captions"):
        open_run_datasets(recipe, tmp_path, lambda done, total: None)


@pytest.mark.parametrize("name", ["endovis2015", "larynx"])
def test_the_recipes_of_real_sets_keep_training_and_test_apart(data_dir: Path, name: str) -> None:
    data, context = load_recipe(name).data, DatasetContext(root=data_dir)
    lines = [spec for spec in (*data.train, *data.policy) if not spec.startswith("rendered:")]
    learned = [open_dataset(spec, "train", context, TRAIN_OPTIONS) for spec in lines]
    scored = [open_dataset(spec, "test", context, TEST_OPTIONS) for spec in data.test]
    check_disjoint(learned, scored)
    assert all(map(len, [*learned, *scored]))
    with pytest.raises(UsageError, match="would be trained on and tested on"):
        check_disjoint(learned, [*scored, learned[0]])


def train(folder: Path, *settings: str) -> list[str]:
    """The words of a command that trains in `folder`."""
    (folder / "tiny.toml").write_text(TINY)
    overrides = [word for setting in settings for word in ("--set", setting)]
    return ["cliprl-train", str(folder / "tiny.toml"), "--out", str(folder / "out"), *overrides]


def test_a_set_of_one_s_own_is_trained_and_scored(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = 'data.train=["folder:mine?sequences=a"]', 'data.test=["folder:mine?sequences=b"]', f"data.root={tmp_path}"
    monkeypatch.setattr(sys, "argv", train(tmp_path, *lists))
    monkeypatch.setattr("cliprl.models.training.training.export_bundle", stand_in)
    assert run_app(cli.app, "cliprl-train") == 0
    manifest = open_bundle(tmp_path / "out" / "bundle").manifest
    assert [(spec.name, spec.prompts) for spec in manifest.classes] == [(n, (f"a {n}",)) for n, *_ in CLASSES]
    assert all(
        entry["frames"] == {"b": 2} and {"pooled", "b"} == entry["base"].keys() for entry in manifest.scores.values()
    )
    assert str(tmp_path) not in (tmp_path / "out" / "bundle" / "manifest.json").read_text()


@pytest.mark.parametrize(
    ("harm", "status", "said"),
    [
        ("size", 1, "images/a/2.png is 40x30 and its mask"),
        ("partner", 1, "images/a/2.png has no mask: copy the whole set again"),
        ("ending", 1, "images/a/1.png has no mask, nor do 1 more beside it: give both one name, unlike 1_mask.png"),
        (
            "suffix",
            1,
            "images/a/1.png has no mask, nor do 1 more beside it: masks have the same names, as PNG",
        ),
        ("deep", 1, "masks/a/1.tif has 32 bits a channel: masks have 8"),
        ("pipe", 1, "images/a/1.png can't be read as an image"),
        ("overlap", 2, "mine/a would be trained on and tested on"),
    ],
)
def test_bad_data_ends_the_command_with_one_line(
    mine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    harm: str,
    status: int,
    said: str,
) -> None:
    if harm == "size":
        cv2.imwrite(str(mine / "images/a/2.png"), np.zeros((30, 40, 3), np.uint8))
    elif harm == "partner":
        (mine / "masks/a/2.png").unlink()
    elif harm in ("ending", "suffix"):
        for mask in list((mine / "masks/a").iterdir()):
            mask.rename(mask.with_name(f"{mask.stem}_mask.png" if harm == "ending" else f"{mask.stem}.gif"))
    elif harm == "deep":
        mask = cv2.imread(str(mine / "masks/a/1.png"), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(mine / "masks/a/1.tif"), mask.astype(np.int32))
        (mine / "masks/a/1.png").unlink()
    elif harm == "pipe":
        (mine / "images/a/1.png").unlink()
        os.mkfifo(mine / "images/a/1.png")
    test = "a" if harm == "overlap" else "b"
    lists = f'data.train=["folder:{mine}?sequences=a"]', f'data.test=["folder:{mine}?sequences={test}"]'
    monkeypatch.setattr(sys, "argv", train(tmp_path, *lists))
    assert run_app(cli.app, "cliprl-train") == status
    (spec,) = capsys.readouterr().err.strip().splitlines()
    assert said in spec


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_unknown_color_ends_the_command_with_one_line(
    mine: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    """The mask is read on another thread, in the middle of the training."""
    mask = mine / "masks/a/2.png"
    image = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    assert image is not None
    image[:3, :4] = 77
    cv2.imwrite(str(mask), image)
    done = command(cli.app, *train(tmp_path, f'data.train=["folder:{mine}?sequences=a"]'))
    assert done.returncode == 1
    (spec,) = done.stderr.strip().splitlines()
    assert "masks/a/2.png holds value 77, which is no class, on 12 pixels: it may hold 0, 7, 9" in spec


def test_folder_that_may_not_be_read_is_named(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(place: str | int) -> object:
        if Path(str(place)).name in ("b", "lost+found"):  # as root may read all
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
        return real(place)

    (mine / "images" / "lost+found").mkdir()
    whole = open_dataset(f"stills:{mine}/images")
    monkeypatch.setattr(os, "scandir", scandir)
    for kind in ("folder", "stills"):
        with pytest.raises(CliprlError, match=r"images/b' can't be read \(Permission denied\)"):
            open_dataset(f"{kind}:{mine}{'/images' * (kind == 'stills')}")
    for side in ("images", "masks"):
        shutil.rmtree(mine / side / "b")
    assert 0 < len(open_dataset(f"stills:{mine}/images")) < len(whole)


def test_hidden_files_links_and_deep_folders(mine: Path, tmp_path: Path) -> None:
    for side in ("images", "masks"):
        (mine / side / "a" / "._1.png").write_bytes(b"of another system")
        (mine / side / ".cache").mkdir()
        (mine / side / "b").rename(tmp_path / f"disk {side}")
        (mine / side / "b").symlink_to(tmp_path / f"disk {side}")
        (mine / side / "c" / "left").mkdir(parents=True)
        (mine / side / "c" / "again").symlink_to(mine / side)
        shutil.copy(mine / side / "a" / "1.png", mine / side / "c" / "left" / "1.png")
    data = open_dataset(f"folder:{mine}")
    assert [(data.sequence(i), data.clip(i)) for i in range(len(data))] == [
        *[("a", "a")] * 2,
        *[("b", "b")] * 2,
        ("c", "c/left"),
    ]
    assert len(open_dataset(f"stills:{mine}/images")) == 5
    (mine / "images" / "c" / "left" / "1.png").unlink()
    with pytest.raises(CliprlError, match=r"masks/c/left/1\.png has no image"):
        open_dataset(f"folder:{mine}")


def test_a_palette_in_another_order_is_read_by_color(mine: Path) -> None:
    mask = mine / "masks/a/1.png"
    values = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    expected = open_dataset(f"folder:{mine}")[0].labels
    indices = np.select([values == 7, values == 9], [0, 1], 2).astype(np.uint8)
    stored = PillowImage.fromarray(indices)
    stored.putpalette([1, 0, 0, 2, 0, 0, 0, 0, 0])
    stored.save(mask)
    assert np.array_equal(open_dataset(f"folder:{mine}")[0].labels, expected)
    toml = mine / "classes.toml"
    toml.write_text(toml.read_text().replace("value = 7", "value = 1").replace("value = 9", "value = 2"))
    with pytest.raises(CliprlError, match=r"1\.png: value 0 is 'wall', and its color in the palette is that of 'duct'"):
        open_dataset(f"folder:{mine}")[0]
    stored.putpalette([9, 9, 9, 8, 8, 8, 7, 7, 7])  # colors of no class: values count
    stored.save(mask)
    assert np.array_equal(open_dataset(f"folder:{mine}")[0].labels, indices)


def test_the_background_comes_first_in_a_list_of_classes(mine: Path) -> None:
    toml = mine / "classes.toml"
    first, second, third = toml.read_text().split("\n[[", 2)
    toml.write_text("\n".join([f"[[{third}", first, f"[[{second}"]))
    with pytest.raises(UsageError, match=r"lists 'hook' first: list the background first"):
        open_dataset(f"folder:{mine}")
    toml.unlink()
    with pytest.raises(UsageError, match=r"classes\.toml is missing: .* \[\[classes\]\] with name = "):
        open_dataset(f"folder:{mine}")


def test_accents_may_be_apart_from_their_letters(mine: Path) -> None:
    for side, form in (("images", "NFD"), ("masks", "NFC")):
        (mine / side / "a" / "2.png").rename(mine / side / "a" / normalize(form, "résection.png"))
    assert len(open_dataset(f"folder:{mine}")) == 4


def test_a_video_too_long_for_memory_names_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = make_clip(tmp_path / "long.mp4", frames=20)
    whole = open_dataset(f"empty:{video}")
    monkeypatch.setattr("cliprl.models.data.io._MOST_BYTES", 5 * whole[0].image.nbytes)
    with pytest.raises(UsageError, match=r"long\.mp4 has more frames than fit into memory: take fewer, with every=4$"):
        len(open_dataset(f"empty:{video}"))
    assert len(open_dataset(f"empty:{video}?every=4")) == 5


def test_stills_without_instruments_are_clips_in_five_sequences(tmp_path: Path) -> None:
    for number in range(10):
        cv2.imwrite(str(tmp_path / f"image{number}.png"), np.full((8, 12, 3), number, np.uint8))
    data = open_dataset(f"stills:{tmp_path}")
    assert len(data) == 10
    assert len({data.clip(index) for index in range(10)}) == 10
    assert [data.sequence(index) for index in (0, 1, 2, 9)] == ["part1", "part1", "part2", "part5"]
    assert data[3].image.shape == (8, 12, 3)
    assert not data[3].labels.any()
    assert len(open_dataset(f"stills:{tmp_path}?sequences=part1,part3")) == 4


def test_subfolders_of_stills_are_sequences_and_empty_ones_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no images in"):
        open_dataset(f"stills:{tmp_path}")
    for name in ("eye", "skin"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "one.jpg"), np.zeros((8, 8, 3), np.uint8))
    assert sequence_names(open_dataset(f"stills:{tmp_path}")) == ["eye", "skin"]
