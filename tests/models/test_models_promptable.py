"""The promptable head: it trains, corrects on its own bundle's features, and is refused where a bundle has none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch

from cliprl.engines import BundleError, UsageError, compile_engine, open_bundle, seal_bundle
from cliprl.engines.bundle.bundle import PROMPT_HEAD
from cliprl.engines.promptable.head import MaskHead, held_mask
from cliprl.engines.promptable.hints import HINTS, cell_descriptors, hint_maps
from cliprl.engines.promptable.outline import moved_outline, settled_outline
from cliprl.engines.promptable.prompt_maps import CHANNELS, prompt_maps
from cliprl.models.data.sample import IGNORE
from cliprl.models.export.onnx_export import write_prompt_head
from cliprl.models.promptable.annotator import Click, mask_iou, next_click
from cliprl.models.promptable.network import PromptHead, repeat_head
from cliprl.models.promptable.samples import labels_in_view
from cliprl.models.promptable.train import mask_loss
from cliprl.pipeline.core.viewport import fit_viewport, frame_to_network, map_points


def test_annotator_clicks_the_center_of_the_largest_error() -> None:
    truth, mask = np.zeros((40, 40), np.uint8), np.zeros((40, 40), bool)
    truth[10:21, 10:21] = 1
    mask[30:33, 30:33] = True
    truth[:, 39] = IGNORE
    assert next_click(mask, truth) == Click(15.5, 15.5, True)
    mask[10:21, 10:21] = True
    assert next_click(mask, truth) == Click(31.5, 31.5, False)
    mask[30:33, 30:33] = False
    assert next_click(mask, truth) is None
    assert mask_iou(mask, truth) == 1.0


def test_prompt_maps_have_their_maximum_at_the_click() -> None:
    maps = prompt_maps(np.array([[3.5, 1.5]]), np.array([0]), np.array([[1, 0, 3, 2]]), (4, 6))
    assert maps.shape == (CHANNELS, 4, 6)
    assert np.unravel_index(maps[2].argmax(), (4, 6)) == (1, 3)
    assert maps[:2].max() == 0
    assert maps[4].sum() == 4


def test_a_head_without_hints_names_the_remedy(tmp_path: Path) -> None:
    shutil.copytree(open_bundle("small").path, tmp_path / "old")
    graph = onnx.load(tmp_path / "old" / PROMPT_HEAD)
    for names in (node.input for node in graph.graph.node):
        names[:] = ["other" if name == "hints" else name for name in names]
    next(one for one in graph.graph.input if one.name == "hints").name = "other"
    onnx.save(graph, tmp_path / "old" / PROMPT_HEAD)
    bundle = open_bundle("small")
    sealed = seal_bundle(tmp_path / "old", bundle.manifest, bundle.embeddings)
    with pytest.raises(BundleError, match=r"no input 'hints'.*train it anew") as error:
        MaskHead(sealed)
    assert "\n" not in str(error.value)


def test_a_head_learns_to_follow_clicks() -> None:
    torch.manual_seed(0)
    head = PromptHead(4, 4)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    features, image = torch.randn(2, 4, 16, 20), torch.zeros(2, 64, 80, 3, dtype=torch.uint8)
    prompts, truth = torch.zeros(2, CHANNELS, 16, 20), torch.zeros(2, 16, 20, dtype=torch.uint8)
    present, hints = torch.zeros(2, 1, 16, 20), torch.zeros(2, HINTS, 16, 20)
    truth[:, 4:12, 6:14] = 1
    prompts[:, 0, 8, 10] = 1
    losses = []
    for _ in range(12):
        loss = mask_loss(head(features, image, prompts, present, hints)[:, 0], truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def head_inputs(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random inputs of a head, in the order of its arguments."""
    maps = {"features": 4, "image": 0, "prompts": CHANNELS, "logits": 1, "hints": HINTS}
    inputs = {name: rng.normal(0, 1, (1, channels, 16, 24)).astype(np.float32) for name, channels in maps.items()}
    return inputs | {"image": rng.integers(0, 256, (1, 64, 96, 3), np.uint8)}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[PromptHead, Path, dict[str, Any]]:
    """A head, its file, and inputs of it."""
    torch.manual_seed(0)
    head, rng, folder = PromptHead(4, 4), np.random.default_rng(0), tmp_path_factory.mktemp("head")
    for _ in range(3):  # so that the statistics of its batch normalizations are not those of a new one
        head(*map(torch.from_numpy, head_inputs(rng).values()))
    inputs = head_inputs(rng)
    write_prompt_head(head.eval(), inputs["features"][0], inputs["image"][0], folder)
    return head, folder / PROMPT_HEAD, inputs


def test_a_head_goes_on_from_an_exported_one(exported: tuple[PromptHead, Path, dict[str, Any]]) -> None:
    first, path, inputs = exported
    tensors, second = [torch.from_numpy(one) for one in inputs.values()], PromptHead(4, 4)
    repeat_head(second, path, tensors)
    with torch.no_grad():
        assert torch.allclose(second.eval()(*tensors), first(*tensors), atol=1e-3)


@pytest.mark.parametrize("crop", [(0, 0, 320, 256), (7, 0, 300, 256), (40, 30, 200, 200)], ids=["all", "cut", "padded"])
def test_labels_lie_where_the_network_sees_what_they_label(crop: tuple[int, int, int, int]) -> None:
    view = fit_viewport((256, 320), (256, 320), crop)
    labels = np.zeros((128, 160), np.uint8)
    labels[40:90, 60:110] = 1
    seen = labels_in_view(labels, view)
    rows, columns = np.nonzero(seen == 1)
    corners = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    expected = map_points(frame_to_network(view), np.array([[120, 80], [220, 180]])).ravel() / 2
    assert np.abs(np.array(corners) - expected).max() <= 0.5
    left, top, width, height = (value // 2 for value in view.placed)
    assert np.count_nonzero(seen != IGNORE) == width * height
    assert seen[top, left] == 0


def test_hints_find_what_looks_like_the_clicked_object() -> None:
    image = np.full((1, 64, 96, 3), (170, 60, 50), np.uint8)
    image[:, 16:48, 8:32], image[:, 16:48, 60:88] = 150, 150  # two gray objects; the present mask has the first
    features, present = np.zeros((1, 2, 16, 24), np.float32), np.full((16, 24), -3, np.float32)
    present[4:12, 2:8] = 3
    clicks, labels = np.array([[18.5, 8.0]]), np.array([1])
    present, held = held_mask(present, clicks, labels, newest=True)
    hints = hint_maps(cell_descriptors(features, image), present, held, clicks, labels, np.zeros((0, 4)), newest=True)
    assert hints.shape == (HINTS, 16, 24)
    for appearance in hints[2:]:
        assert appearance[5:11, 16:21].min() > appearance[:, 10:14].max() + 0.5
    assert held[8, 18]
    assert hints[0].argmax() in (8 * 24 + 18, 7 * 24 + 18)


def logits_of_boxes(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Logits (32, 40) of a mask of boxes x0, y0, x1, y1 in cells."""
    logits = np.full((32, 40), -3, np.float32)
    for x0, y0, x1, y1 in boxes:
        logits[y0:y1, x0:x1] = 3
    return logits


def mask_of_pixels(logits: np.ndarray) -> np.ndarray:
    """The mask bool (256, 320) of logits (32, 40)."""
    return np.asarray(cv2.resize(logits, (320, 256), interpolation=cv2.INTER_LINEAR) > 0)


@pytest.mark.parametrize("positive", [True, False], ids=["missed", "too much"])
def test_an_outline_moves_with_a_click_in_a_thin_error(positive: bool) -> None:
    # The click lies 4 pixels beyond the right edge at x = 160, or before it: the edge comes to it. The other object stays.
    present = logits_of_boxes((10, 10, 20, 22), (28, 10, 34, 22))
    moved = mask_of_pixels(moved_outline(present, np.array([20.5 if positive else 19.5, 16.0]), positive, 8))
    before = mask_of_pixels(present)
    edge, was = (np.flatnonzero(mask[128, :200])[-1] for mask in (moved, before))
    assert (edge - was) * (1 if positive else -1) in (2, 3, 4, 5)
    assert mask_iou(moved[:, 200:], before[:, 200:].astype(np.uint8)) > 0.95


@pytest.mark.parametrize(
    ("x", "positive"), [(25.0, True), (15.0, True), (30.0, False)], ids=["far", "right already", "right beside"]
)
def test_an_outline_stays_at_a_click_far_or_right(x: float, positive: bool) -> None:
    present = logits_of_boxes((10, 10, 20, 22))
    assert moved_outline(present, np.array([x, 16.0]), positive, 8) is present


def test_an_outline_settles_on_the_edge_of_the_image() -> None:
    rng, image = np.random.default_rng(0), np.full((256, 320, 3), (170, 60, 50), np.uint8)
    image[80:176, 83:163] = 150  # the mask is 3 pixels beside it
    image += rng.integers(0, 8, image.shape, np.uint8)
    click = np.array([[15.0, 16.0]])
    present = logits_of_boxes((10, 10, 20, 22)) / 6
    settled = settled_outline(present, image, click, np.array([1]))
    truth = (image[..., 1] > 110).astype(np.uint8)
    assert mask_iou(mask_of_pixels(settled), truth) > mask_iou(mask_of_pixels(present), truth) + 0.02


def test_specks_go_and_clicked_ones_stay() -> None:
    image, speck, clicked = np.zeros((256, 320, 3), np.uint8), (35, 2, 37, 4), (2, 28, 4, 30)
    present = logits_of_boxes((10, 10, 20, 22), speck, clicked)
    settled = settled_outline(present, image, np.array([[3.0, 29.0], [35.9, 20.0]]), np.array([1, 0]))
    assert settled[2:4, 35:37].max() < 0 < min(settled[28:30, 2:4].min(), settled[11:21, 11:19].min())


def test_a_mask_without_an_outline_stays() -> None:
    image, empty = np.zeros((256, 320, 3), np.uint8), np.full((32, 40), -3, np.float32)
    assert settled_outline(empty, image, np.array([[3.0, 3.0]]), np.array([0])) is empty


def test_the_exported_head_gives_the_networks_mask(exported: tuple[PromptHead, Path, dict[str, Any]]) -> None:
    head, path, inputs = exported
    with torch.no_grad():
        expected = head(*map(torch.from_numpy, inputs.values())).numpy()
    found = compile_engine(path, precision="f32", threads=1).run(inputs)["mask"]
    assert np.abs(found - expected).max() < 1e-3


def test_a_box_alone_bounds_the_object_and_clicks_hold() -> None:
    head, rng = MaskHead(open_bundle("small"), threads=1), np.random.default_rng(0)
    features = rng.normal(0, 1, head.encode(np.zeros((256, 320, 3), np.uint8)).tensors["features"].shape)
    image, logits = rng.integers(0, 256, (1, 256, 320, 3), np.uint8), rng.normal(0, 3, features.shape[2:])
    box, no_boxes, empty = np.array([[80.0, 60.0, 160.0, 140.0]]), np.zeros((0, 4)), np.zeros(logits.shape)
    outside = np.ones(empty.shape, bool)
    outside[15:35, 20:40] = False
    assert (head.correct(features, image, np.zeros((0, 2)), np.zeros(0, int), box, empty)[outside] < -1).all()
    clicks, labels = np.array([[20.0, 20.0], [120.0, 100.0], [300.0, 240.0]]), np.array([1, 0, 1])
    for present, boxes in ((empty, box), (logits, no_boxes)):
        mask = head.correct(features, image, clicks, labels, boxes, present)
        assert [mask[int(y) // 4, int(x) // 4] > 0 for x, y in clicks] == [True, False, True]


@pytest.mark.parametrize("apart", [5, 12], ids=["in the next cell", "three cells away"])
def test_an_earlier_click_holds_beside_an_opposite_one(apart: int) -> None:
    head, image = MaskHead(open_bundle("small"), threads=1), np.zeros((1, 256, 320, 3), np.uint8)
    features = np.zeros(head.encode(image[0]).tensors["features"].shape, np.float32)
    clicks, present = np.array([[100.0, 100.0], [100.0 + apart, 100.0]]), np.full(features.shape[2:], -3, np.float32)
    for labels in ([0, 1], [1, 0]):
        mask = head.correct(features, image, clicks, np.array(labels), np.zeros((0, 4)), present)
        shown = cv2.resize(mask, (320, 256)) > 0
        assert [int(shown[int(y), int(x)]) for x, y in clicks] == labels


def test_a_bundle_without_a_head_says_how_to_add_it() -> None:
    bundle = open_bundle("small")
    hashes = {name: value for name, value in bundle.manifest.hashes.items() if name != PROMPT_HEAD}
    with pytest.raises(UsageError, match=r"python -m cliprl\.models\.promptable\.train"):
        MaskHead(replace(bundle, manifest=replace(bundle.manifest, hashes=hashes)))
