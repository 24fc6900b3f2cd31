"""Classes by example: the box of an exemplar, its class embedding, and the errors of the option."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.engines import Bundle, UsageError, open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline import Frame, Segmenter
from cliprl.pipeline.cli.class_selection import open_with_classes
from cliprl.pipeline.cli.main import app
from cliprl.pipeline.segment.exemplars import Exemplar, parse_exemplar, with_exemplars
from cliprl.pipeline.sources.factory import read_first_frame

SHAFT = "instrument-shaft"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gray bar across red tissue, 320x256: the bar fills rows 100 to 159."""
    rng = np.random.default_rng(0)
    pixels = np.full((256, 320, 3), (60, 70, 170), np.uint8)
    pixels[100:160] = (150, 150, 150)
    noise = cv2.GaussianBlur(rng.normal(0, 40, pixels.shape), (0, 0), 3)
    path = tmp_path_factory.mktemp("exemplar") / "frame.png"
    cv2.imwrite(str(path), np.clip(pixels + noise, 0, 255).astype(np.uint8))
    return path


def labels(bundle: Bundle, path: Path) -> NDArray[np.uint8]:
    return Segmenter(bundle, precision="f32", threads=1, steps=0)(read_first_frame(path)).labels


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grasper", "NAME=FILE#X,Y,WIDTH,HEIGHT"),
        ("grasper=frame.png", "NAME=FILE#X,Y,WIDTH,HEIGHT"),
        ("=frame.png#1,2,3,4", "NAME=FILE#X,Y,WIDTH,HEIGHT"),
        ("grasper=#1,2,3,4", "NAME=FILE#X,Y,WIDTH,HEIGHT"),
        ("grasper=frame.png#1,2,3", "four whole numbers"),
        ("grasper=frame.png#1,2,3,4.5", "four whole numbers"),
        ("grasper=frame.png#", "four whole numbers"),
        ("grasper=frame.png#1,2,0,4", "box 0x4 is empty"),
        ("grasper=frame.png#1,2,3,-4", "box 3x-4 is empty"),
    ],
)
def test_what_no_exemplar_is(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_exemplar(text)


def test_a_file_name_may_hold_both_separators() -> None:
    assert parse_exemplar(" my  grasper =a=b#1.png# 1, 2,3,4") == Exemplar("my grasper", "a=b#1.png", (1, 2, 3, 4))


def test_new_class_covers_its_box_and_little_else(image: Path) -> None:
    bundle = open_with_classes("small", (), [f"bar={image}#0,100,320,60"])
    assert [spec.name for spec in bundle.manifest.classes][-1] == "bar"
    assert bundle.manifest.classes[-1].kind == "prompted"
    assert np.linalg.norm(bundle.embeddings[-1]) == pytest.approx(1)
    found = labels(bundle, image) == 12
    assert found[26:39].mean() > 0.9
    assert found[:22].mean() < 0.1 > found[43:].mean()


def test_exemplar_of_a_known_name_adapts_that_class(image: Path) -> None:
    bundle = open_bundle("small")
    adapted = with_exemplars(bundle, [f"{SHAFT}={image}#0,100,320,60"], read_first_frame)
    assert adapted.manifest == bundle.manifest
    changed = np.flatnonzero((adapted.embeddings != bundle.embeddings).any(axis=1))
    assert changed.tolist() == [1]
    assert 0.2 < float(adapted.embeddings[1] @ bundle.embeddings[1]) < 0.999
    assert with_exemplars(bundle, [], read_first_frame) is bundle


def test_a_box_counts_in_the_image_as_displayed(image: Path) -> None:
    bundle, upright = open_bundle("small"), read_first_frame(image)
    turned = replace(
        upright,
        luma=np.ascontiguousarray(np.rot90(upright.luma, -1)),
        chroma=np.ascontiguousarray(np.rot90(upright.chroma, -1)),
        rotation=90,
    )
    two = [with_exemplars(bundle, ["bar=x#0,100,320,60"], lambda _, f=f: f).embeddings for f in (upright, turned)]
    np.testing.assert_allclose(two[0], two[1], atol=1e-4)


def test_tiny_box_is_its_nearest_cell_and_boxes_outside_fail(image: Path) -> None:
    bundle = open_bundle("small")
    assert len(with_exemplars(bundle, [f"dot={image}#0,0,1,1"], read_first_frame).embeddings) == 13
    with pytest.raises(UsageError, match=r"reaches out of .*frame.png, which has 320x256 pixels"):
        with_exemplars(bundle, [f"bar={image}#300,0,21,5"], read_first_frame)
    dark = np.zeros((256, 320), np.uint8)
    dark[:, 80:240] = np.random.default_rng(1).integers(90, 160, (256, 160))
    bars = Frame(dark, np.full((128, 160, 2), 128, np.uint8), 0, Fraction(1, 25), 0)
    with pytest.raises(UsageError, match="outside the endoscope's image"):
        with_exemplars(bundle, ["bar=bars.png#4,4,20,20"], lambda _: bars)


def test_more_classes_than_the_networks_take_are_refused(image: Path) -> None:
    many = [f"class{i}={image}#0,0,9,9" for i in range(60)]
    with pytest.raises(UsageError, match="72 classes are more than the 64"):
        with_exemplars(open_bundle("small"), many, read_first_frame)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a=missing.png#1,2,3,4", "missing.png"),
        ("a=text.png#1,2,3,4", "text.png"),
        ("a=nonsense", "NAME=FILE#X,Y,WIDTH,HEIGHT"),
    ],
)
def test_the_command_refuses_bad_exemplars_in_one_line(
    value: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image", encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["cliprl-stream", "demo:", "-o", "null:", "--exemplar", value])
    assert run_app(app, "cliprl-stream") in (1, 2)
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert words in lines[0]
