"""A random SAM and a random SAM 2: saved, loaded by transformers, exported as an ONNX pair, and both give the same masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_sam import export_pair, random_sam, random_sam2

import cliprl.models.labelling.transformers_network  # noqa: F401 - registers its kind
from cliprl.engines import UsageError
from cliprl.engines.promptable import no_boxes, no_points, open_promptable

pytest.importorskip("transformers")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("make", "fine"), [(random_sam, False), (random_sam2, True)])
def test_onnx_and_torch_give_the_same_masks(tmp_path: Path, make: Callable[[], Any], fine: bool) -> None:
    model = make()
    model.save_pretrained(tmp_path / "saved")
    by_torch = open_promptable(f"transformers:{tmp_path / 'saved'}", threads=1)
    by_onnx = open_promptable(export_pair(model, tmp_path, fine), threads=1)
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    points, labels, box = np.float32([[20, 12], [70, 40]]), np.int64([1, 0]), np.float32([[5, 4, 44, 31]])
    embedded = by_torch.encode(image), by_onnx.encode(image)
    for prompt in ((points, labels, no_boxes()), (*no_points(), box), (points, labels, box)):
        expected, found = by_torch.masks(embedded[0], *prompt), by_onnx.masks(embedded[1], *prompt)
        assert expected.logits.shape == (3, 50, 80)
        assert np.abs(found.logits - expected.logits).max() <= 1e-3
        assert np.abs(found.scores - expected.scores).max() <= 1e-3


def test_folders_of_another_model_are_one_line(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    random_sam().save_pretrained(saved)
    state = json.loads((saved / "config.json").read_text())
    for change, message in (
        ({"model_type": "clip"}, "holds a model of type 'clip': give one of type sam"),
        ({"vision_config": state["vision_config"] | {"mlp_dim": 20}}, "do not fit its config.json|can't be loaded"),
    ):
        (saved / "config.json").write_text(json.dumps(state | change))
        with pytest.raises(UsageError, match=message) as error:
            open_promptable(f"transformers:{saved}")
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match=r"has no config\.json"):
        open_promptable(f"transformers:{tmp_path}")
