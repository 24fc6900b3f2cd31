"""The promptable head: it trains, corrects on its own bundle's features, and is refused where a bundle has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cliprl.engines import UsageError, compile_engine, open_bundle
from cliprl.engines.bundle.bundle import PROMPT_HEAD, REFINER
from cliprl.engines.promptable import open_promptable
from cliprl.engines.promptable.head import MaskHead
from cliprl.engines.promptable.prompt_maps import CHANNELS, prompt_maps
from cliprl.models.data.sample import IGNORE
from cliprl.models.export.resizable import example_inputs, head_of, refiner_of
from cliprl.models.promptable.annotator import Click, mask_iou, next_click
from cliprl.models.promptable.network import PromptHead
from cliprl.models.promptable.train import mask_loss


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


def test_a_head_learns_to_follow_clicks() -> None:
    torch.manual_seed(0)
    head = PromptHead(4, 4)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    features, image = torch.randn(2, 4, 16, 20), torch.zeros(2, 64, 80, 3, dtype=torch.uint8)
    prompts, truth = torch.zeros(2, CHANNELS, 16, 20), torch.zeros(2, 16, 20, dtype=torch.uint8)
    truth[:, 4:12, 6:14] = 1
    prompts[:, 0, 8, 10] = 1
    losses = []
    for _ in range(12):
        loss = mask_loss(head(features, image, prompts, torch.zeros(2, 1, 16, 20))[:, 0], truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_graphs_of_an_older_bundle_are_written_from_their_weights() -> None:
    bundle = open_bundle("small")
    inputs = example_inputs(bundle)
    with torch.no_grad():
        given = {name: torch.from_numpy(array) for name, array in inputs[REFINER].items()}
        refined = refiner_of(bundle)(*(given[name] for name in ("features", "logits", "base", "prior", "text")))[0]
        mask = head_of(bundle)(*map(torch.from_numpy, inputs[PROMPT_HEAD].values()))
    for file, name, expected in ((REFINER, "refined", refined), (PROMPT_HEAD, "mask", mask)):
        shapes = {key: array.shape for key, array in inputs[file].items()}
        engine = compile_engine(bundle.path / file, precision="f32", shapes=shapes, threads=1)
        found = engine.run(inputs[file])[name]
        assert (np.abs(found - expected.numpy()) < 1e-3).mean() > 0.999


def test_a_box_alone_bounds_the_object_and_clicks_hold() -> None:
    head = MaskHead(open_bundle("small"), threads=1)
    inputs = example_inputs(head.bundle)[PROMPT_HEAD]
    features, image, empty = inputs["features"], inputs["image"], np.zeros(inputs["logits"].shape[2:], np.float32)
    box, no_boxes = np.array([[80.0, 60.0, 160.0, 140.0]]), np.zeros((0, 4))
    outside = np.ones(empty.shape, bool)
    outside[15:35, 20:40] = False
    assert (head.correct(features, image, np.zeros((0, 2)), np.zeros(0, int), box, empty)[outside] < -1).all()
    clicks, labels = np.array([[20.0, 20.0], [120.0, 100.0], [300.0, 240.0]]), np.array([1, 0, 1])
    for present, boxes in ((empty, box), (inputs["logits"][0, 0], no_boxes)):
        mask = head.correct(features, image, clicks, labels, boxes, present)
        assert [mask[int(y) // 4, int(x) // 4] > 0 for x, y in clicks] == [True, False, True]


def test_a_bundle_without_a_head_says_how_to_add_it() -> None:
    if "prompt.onnx" in open_bundle("small").manifest.hashes:
        pytest.skip("the shipped bundle has a head")
    with pytest.raises(UsageError, match=r"python -m cliprl\.models\.promptable\.train"):
        open_promptable("head:small")
