"""The class of a whole region, for classes that are known by words alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cliprl.engines import ClassSpec, UsageError

torch = pytest.importorskip("torch")

from cliprl.models.config.load import load_recipe  # noqa: E402
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT  # noqa: E402
from cliprl.models.studies.words import region_words_study  # noqa: E402
from cliprl.models.studies.words.region_classes import (  # noqa: E402
    RegionStage,
    ViewSegmenter,
    instrument_regions,
    region_code,
)
from cliprl.models.studies.words.region_views import RegionViews, region_view, tip_view  # noqa: E402
from cliprl.pipeline.synthetic import SCENE_CLASSES  # noqa: E402

CLASSES = (
    ClassSpec("tissue", (0, 0, 0), "background", ("tissue",)),
    ClassSpec("shaft", (0, 255, 0), "instrument", ("shaft",)),
    ClassSpec("tip", (0, 0, 255), "instrument", ("tip",)),
    ClassSpec("probe", (255, 0, 0), "instrument", ("probe",)),
)
PROBE = 3


class WordNetwork:
    """Stands in for a network: each text is one axis, the logits and the embedding of a view are given."""

    size = (64, 96)
    words = ("tissue", "shaft", "tip", "probe", "zebra")

    def __init__(self, logits: Any = None, view: tuple[float, ...] = ()) -> None:
        self.logits, self.view = logits, torch.tensor(view)

    def eval(self) -> WordNetwork:
        return self

    def tokenize(self, texts: list[str]) -> list[str]:
        return texts

    def encode_text(self, texts: list[str]) -> Any:
        return torch.stack([torch.eye(5)[[word in text for word in self.words].index(True)] for text in texts])

    def encode_image(self, images: Any) -> Any:
        return self.view.repeat(len(images), 1)

    def __call__(self, image: Any, text: Any) -> tuple[None, Any]:
        return None, torch.einsum("ke,ehw->khw", text, torch.from_numpy(self.logits))[None]


def drawn_logits() -> Any:
    """A shaft with a tip on the left, a shaft on the right, a speck: logits (5, 16, 24); a probe is less likely there."""
    logits = np.zeros((5, 16, 24), np.float32)
    logits[0] = 4
    logits[1, 2:8, 2:5] = logits[2, 8:10, 2:5] = logits[1, 2:12, 15:18] = logits[1, 13:15, 10:12] = 8
    logits[3] = logits[1:3].max(0) / 2
    return logits


def test_parts_that_touch_are_one_region_and_specks_none() -> None:
    numbers = instrument_regions(drawn_logits()[:4], CLASSES)
    assert numbers.max() == 2
    assert (numbers[2:10, 2:5] == numbers[2, 2]).all()
    assert numbers[2, 15] not in (0, numbers[2, 2])
    assert not numbers[13:15, 10:12].any()
    tissue = np.zeros((4, 8, 8), np.float32)
    tissue[0] = 4
    assert not instrument_regions(tissue, CLASSES).any()


@pytest.mark.parametrize("place", [(0, 0, 3, 24), (6, 4, 4, 3), (14, 22, 2, 2), (0, 0, 16, 24)])
def test_a_view_holds_the_whole_region(place: tuple[int, int, int, int]) -> None:
    """At the border too; the image there is that of the region, and its proportions stay."""
    top, left, height, width = place
    cells = np.zeros((16, 24), bool)
    cells[top : top + height, left : left + width] = True
    image = np.repeat(np.kron(cells, np.ones((8, 8)))[..., None] * 200, 3, 2).astype(np.uint8)
    view, mask = region_view(image, cells)
    assert view.shape == (*mask.shape, 3)
    assert np.logical_and(mask, view[..., 0] > 100).sum() > 0.95 * np.logical_or(mask, view[..., 0] > 100).sum()
    rows, columns = (np.ptp(np.flatnonzero(mask.any(axis))) + 1 for axis in (1, 0))
    assert rows / columns == pytest.approx(height / width, rel=0.06)


@pytest.mark.parametrize("entry", ["top", "bottom", "left", "right"])
def test_the_tip_is_seen_large_wherever_the_instrument_enters(entry: str) -> None:
    """A shaft 8 pixels wide that enters from a border, with a bright tip; the whole view shows the tip smaller."""
    image, cells = np.zeros((128, 128, 3), np.uint8), np.zeros((32, 32), bool)
    image[:80, 60:68], image[72:80, 60:68] = 90, 250
    cells[:20, 15:17] = True
    turns = ("top", "left", "bottom", "right").index(entry)
    image, cells = np.ascontiguousarray(np.rot90(image, turns)), np.rot90(cells, turns)
    (tip, mask), (whole, _) = tip_view(image, cells), region_view(image, cells)
    assert (tip[mask] > 40).mean() > 0.99
    assert (tip > 220).sum() > 3 * (whole > 220).sum() > 0


def test_a_region_of_one_cell_has_a_tip() -> None:
    cells = np.zeros((16, 24), bool)
    cells[3, 5] = True
    view, mask = tip_view(np.full((128, 192, 3), 50, np.uint8), cells)
    assert view.shape == (*mask.shape, 3)
    assert mask[64, 64]


@pytest.mark.parametrize(
    ("drawn", "own", "code"),
    [
        ([1, 1, 2, 0], PROBE, INSTRUMENT),
        ([0, 0, 0, 1], PROBE, PROBE),
        ([0, 0, 0, 0], None, NOT_INSTRUMENT),
        ([0, 0, 1, 1], PROBE, IGNORE),
        ([0, 0, IGNORE, IGNORE], PROBE, IGNORE),
    ],
)
def test_labels_and_caption_give_the_class_of_a_region(drawn: list[int], own: int | None, code: int) -> None:
    assert region_code(np.array(drawn, np.uint8), own, CLASSES) == code


def test_a_view_decides_for_all_cells_of_its_region() -> None:
    network, image = WordNetwork(drawn_logits()), np.zeros((64, 96, 3), np.uint8)
    region_network = WordNetwork(view=(0.0, 0.1, 0.0, 1.0, 0.0))
    plain = ViewSegmenter(network, (), CLASSES, ["probe"])(image, CLASSES)
    found = ViewSegmenter(network, [region_network], CLASSES, ["probe"])(image, CLASSES)
    inside = instrument_regions(plain, CLASSES) > 0
    assert (plain.argmax(0) != PROBE).all()
    assert (found.argmax(0) == PROBE)[inside].all()
    assert np.array_equal(found[:, ~inside], plain[:, ~inside])
    assert np.allclose((found - plain)[1, inside], (found - plain)[2, inside])


def test_networks_look_at_different_views(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    network = WordNetwork(view=(0.0, 1.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(network, "encode_image", lambda images: seen.append(images) or network.view[None])
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3)).astype(np.uint8)
    ViewSegmenter(WordNetwork(drawn_logits()), [network, network], CLASSES, ["probe"])(image, CLASSES)
    assert len(seen) == 4  # two regions
    assert not torch.equal(seen[0], seen[1])


def test_a_view_of_a_known_instrument_leaves_its_parts() -> None:
    network, image = WordNetwork(drawn_logits()), np.zeros((64, 96, 3), np.uint8)
    region_network = WordNetwork(view=(0.0, 1.0, 0.0, 0.1, 0.9))
    specs = [*CLASSES, ClassSpec("zebra", (0, 0, 0), "prompted", ("zebra",))]
    plain = ViewSegmenter(network, (), CLASSES, ["probe"])(image, specs)
    found = ViewSegmenter(network, [region_network], CLASSES, ["probe"])(image, specs)
    assert np.array_equal(found.argmax(0), plain.argmax(0))


def test_an_image_of_another_size_has_the_same_cells() -> None:
    network = WordNetwork(np.kron(drawn_logits(), np.ones((2, 2), np.float32)))
    segmenter = ViewSegmenter(network, (), CLASSES, size=(128, 192))
    assert np.allclose(segmenter(np.zeros((128, 192, 3), np.uint8), CLASSES), drawn_logits()[:4])


def test_a_class_without_regions_is_refused() -> None:
    views = RegionViews(np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4), bool), np.full(2, INSTRUMENT, np.uint8))
    with pytest.raises(UsageError, match=r"of probe: raise data\.scenes"):
        RegionStage(WordNetwork(), views, CLASSES, [PROBE], load_recipe("small"))


def test_regions_need_a_finished_text_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region_words_study, "open_scenes", lambda *_: None)
    with pytest.raises(UsageError, match="run the text study to its end first"):
        CliRunner().invoke(region_words_study.app, ["--out", str(tmp_path), "-q"], catch_exceptions=False)


def test_table_has_a_line_for_each_variant_and_class() -> None:
    row = dict.fromkeys(region_words_study.REGION_SCORES, 0.25)
    table = region_words_study.format_regions({"regions": {SCENE_CLASSES[PROBE].name: {0: row, 1: row}}})
    assert table.count("| regions | instrument-wrist |") == 2
