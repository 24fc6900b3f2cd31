"""The overlay's colours can be told apart, also by colour-blind people, and files keep those of the data sets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, UsageError, open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline import Overlay
from cliprl.pipeline.cli import main as cli
from cliprl.pipeline.cli.class_selection import select_classes
from cliprl.pipeline.overlay.palette import OVERLAY_COLORS, overlay_classes

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", IEEE Transactions on
# Visualization and Computer Graphics 15(6), 2009: the matrices of severity 1.0, for linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TISSUE = np.array([(175, 95, 85), (120, 50, 45), (210, 150, 130)])
Colors = NDArray[np.float64]


def lab(rgb: object, vision: str) -> Colors:
    """CIELAB (CIE 15:2004, D65) of sRGB colours (IEC 61966-2-1), 0..255, as somebody with this vision sees them."""
    share = np.asarray(rgb, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ VISION[vision].T, 0, 1)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = seen @ to_xyz.T / (0.95047, 1, 1.08883)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def least_distance(colors: object, vision: str) -> float:
    """The smallest CIE 1976 colour difference between any two."""
    place = lab(colors, vision)
    distances = np.linalg.norm(place[:, None] - place[None], axis=-1)
    return float(distances[~np.eye(len(place), dtype=bool)].min())


def test_the_simulation_knows_what_is_hard_to_tell_apart() -> None:
    assert lab((255, 255, 255), "normal") == pytest.approx([100, 0, 0], abs=0.01)
    assert lab((255, 0, 0), "normal") == pytest.approx([53.24, 80.09, 67.20], abs=0.02)
    red_and_green = [(180, 90, 60), (120, 115, 60)]
    assert least_distance(red_and_green, "deuteranopia") < least_distance(red_and_green, "normal") / 3


@pytest.mark.parametrize("vision", VISION)
def test_any_two_colours_can_be_told_apart(vision: str) -> None:
    assert len(OVERLAY_COLORS) == 16
    for count in range(2, 17):
        assert least_distance(OVERLAY_COLORS[:count], vision) > (26 if count <= 11 else 17), count


@pytest.mark.parametrize("vision", VISION)
def test_colors_differ_on_tissue_at_the_default_opacity(vision: str) -> None:
    for tissue in TISSUE:
        blended = 0.4 * np.array(OVERLAY_COLORS[:11]) + 0.6 * tissue
        assert least_distance(blended, vision) > 3  # 2.3 is what can just be noticed
        apart = np.linalg.norm(lab(OVERLAY_COLORS, vision) - lab(tissue, vision), axis=-1)
        assert apart.min() > 14


@pytest.mark.parametrize("vision", VISION)
def test_shipped_classes_differ_on_screen_and_keep_colors_in_files(vision: str) -> None:
    classes = open_bundle("small").manifest.classes
    shown = [spec.color for spec in overlay_classes(classes) if spec.kind != "background"]
    assert len(shown) == 11
    assert least_distance(shown, vision) > 26
    assert least_distance([spec.color for spec in classes], vision) < 10, "the data set's own are not"


@pytest.mark.parametrize("live", [False, True])
def test_command_paints_palette_colors_and_writes_data_set_colors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    painted: list[Overlay] = []
    draw = Overlay.draw
    monkeypatch.setattr(Overlay, "draw", lambda overlay, *given: (painted.append(overlay), draw(overlay, *given))[1])
    words = ["cliprl-stream", "demo:?seconds=0.12&size=160x128", "-q", "--classes", "instrument,thread"]
    words += ["-o", f"{tmp_path / 'm'}/", "--prompt", "stitches #102030"]
    words += ["--record", str(tmp_path / "rec"), "--record-what", "raw"] if live else []
    monkeypatch.setattr(sys, "argv", words)
    assert run_app(cli.app, "cliprl-stream") == 0
    manifest = open_bundle("small").manifest
    own, union = manifest.classes, manifest.mask_classes[len(manifest.classes) :]
    colors = [one.color for one in painted[0].classes if one.kind != "background"]
    assert colors == [*OVERLAY_COLORS[:11], (16, 32, 48), *OVERLAY_COLORS[11 : 11 + len(union)]]
    parts = ("instrument-shaft", "instrument-clasper", "instrument-wrist", "thread")
    assert painted[0].style.shown == (*parts, *(one.name for one in union))
    written = json.loads((tmp_path / "m" / "classes.json").read_text())["classes"]
    assert [tuple(one["color"]) for one in written] == [
        *(one.color for one in own),
        (16, 32, 48),
        *(one.color for one in union),
    ]


def spec(name: str, color: tuple[int, int, int] = (1, 2, 3), kind: str = "instrument") -> ClassSpec:
    return ClassSpec(name, color, kind, (name,))


def test_color_of_the_user_stays_and_similar_ones_are_avoided() -> None:
    classes = [spec("tissue", kind="background"), spec("a"), spec("b", (70, 250, 0)), spec("c")]
    colors = [one.color for one in overlay_classes(classes, {"b": (70, 250, 0)})]
    assert colors == [(1, 2, 3), OVERLAY_COLORS[1], (70, 250, 0), OVERLAY_COLORS[2]]


def test_more_classes_than_colours_keep_their_own() -> None:
    classes = [spec(str(i), (i, i, i)) for i in range(17)]
    assert overlay_classes(classes) == tuple(classes)
    assert len({one.color for one in overlay_classes(classes[:16])}) == 16


NAMES = ("instrument-shaft", "instrument-wrist", "suction-instrument", "thread", "a, b")
CLASSES = (spec("background-tissue", kind="background"), *map(spec, NAMES))


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["thread"], ["thread"]),
        (["instrument"], ["instrument-shaft", "instrument-wrist"]),
        (["Instrument"], ["instrument-shaft", "instrument-wrist"]),
        (["thread,instrument-wrist"], ["instrument-wrist", "thread"]),
        (["thread, instrument", "suction"], ["instrument-shaft", "instrument-wrist", "suction-instrument", "thread"]),
        (["a, b"], ["a, b"]),
        (["thread", "thread,"], ["thread"]),
    ],
)
def test_classes_are_named_by_word_group_or_list(words: list[str], names: list[str]) -> None:
    assert list(select_classes(words, CLASSES)) == names


def test_instrument_names_the_parts_and_the_unsure_ones() -> None:
    classes = (*CLASSES, spec("instrument"), spec("thread-end"))
    assert select_classes(["instrument"], classes) == ("instrument-shaft", "instrument-wrist", "instrument")
    assert select_classes(["thread"], classes) == ("thread",)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("instrument-shft", "did you mean instrument-shaft"),
        ("instrumnt", "instrument"),
        ("thread,treads", "unknown class 'treads': did you mean thread"),
        ("spleen", "unknown class 'spleen'"),
        ("background-tissue", "one of|did you mean"),
        ("", "unknown class ''"),
        (",", "unknown class ','"),
        ("instrument-", "unknown class 'instrument-'"),
    ],
)
def test_an_unknown_class_is_refused_with_the_nearest_names(word: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        select_classes([word], CLASSES)
    assert "instrument-shaft" in str(refused.value)
