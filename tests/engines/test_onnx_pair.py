"""ONNX pairs of the SAM family: coordinates survive every frame size, and files that do not fit are one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sam_files import write_sam

from cliprl.engines import CliprlError, UsageError
from cliprl.engines.promptable import choose_mask, no_points, open_promptable


def painted(height: int, width: int, box: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = np.round(box).astype(int)
    mask = np.zeros((height, width), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize(("kind", "count"), [("sam", 50), ("raw", 10), ("sam2", 10), ("efficient", 10)])
def test_boxes_survive_fifty_frame_sizes(tmp_path: Path, kind: str, count: int) -> None:
    network = open_promptable(write_sam(tmp_path, kind, side=512), threads=1)
    rng = np.random.default_rng(1)
    sizes = [(64, 64), (97, 640), (640, 97), (256, 256), (720, 1280)]
    sizes += [tuple(map(int, rng.integers(80, 500, 2))) for _ in range(count - 5)]
    for height, width in sizes:
        corners = rng.uniform([[0.05, 0.05], [0.6, 0.6]], [[0.4, 0.4], [0.95, 0.95]])
        box = np.round(corners * [width, height]).reshape(4).astype(np.float32)
        embedding = network.encode(np.zeros((height, width, 3), np.uint8))
        masks = network.masks(embedding, *no_points(), box[None])
        assert masks.logits.shape == (3, height, width)
        assert overlap(masks.logits[1] > 0, painted(height, width, box)) >= 0.98, (height, width, box)
        assert choose_mask(masks).index == 1


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_turned_image_gives_the_turned_mask(tmp_path: Path, turns: int) -> None:
    network = open_promptable(write_sam(tmp_path), threads=1)
    height, width, box = 120, 200, np.float32([20, 30, 90, 80])
    truth = np.rot90(painted(height, width, box), turns)
    rows, columns = np.nonzero(truth)
    turned = np.float32([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]])
    image = np.ascontiguousarray(np.rot90(np.zeros((height, width, 3), np.uint8), turns))
    masks = network.masks(network.encode(image), *no_points(), turned)
    assert overlap(masks.logits[1] > 0, truth) >= 0.98


def test_several_boxes_are_parts_of_one_object(tmp_path: Path) -> None:
    network = open_promptable(write_sam(tmp_path), threads=1)
    boxes = np.float32([[8, 8, 60, 40], [100, 50, 150, 90]])
    embedding = network.encode(np.zeros((100, 160, 3), np.uint8))
    points, labels = np.float32([[20, 20], [130, 70], [5, 90]]), np.int64([1, 1, 0])
    masks = network.masks(embedding, points, labels, boxes)
    truth = painted(100, 160, boxes[0]) | painted(100, 160, boxes[1])
    assert overlap(masks.logits[1] > 0, truth) >= 0.97
    assert masks.scores.tolist() == pytest.approx([0.5, 0.9, 0.6])


def test_swapped_files_are_named(tmp_path: Path) -> None:
    encoder, decoder = write_sam(tmp_path).removeprefix("sam:").split(",")
    with pytest.raises(UsageError, match="is the decoder and"):
        open_promptable(f"sam:{decoder},{encoder}")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"channels": 8}, "image_embeddings float32"),
        ({"side": 128}, "do not fit together"),
        ({"kind": "sam2"}, "high_res_feats_0"),
    ],
)
def test_files_of_two_exports_do_not_fit(tmp_path: Path, other: dict[str, object], message: str) -> None:
    (tmp_path / "other").mkdir()
    encoder = write_sam(tmp_path).removeprefix("sam:").split(",")[0]
    decoder = write_sam(tmp_path / "other", **other).split(",")[1]  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=message) as error:
        open_promptable(f"sam:{encoder},{decoder}")
    assert "give the two files of one export" in str(error.value)
    assert "\n" not in str(error.value)


def test_files_of_another_architecture_are_one_line(tmp_path: Path) -> None:
    encoder, decoder = write_sam(tmp_path).removeprefix("sam:").split(",")
    (tmp_path / "text.onnx").write_text("hello")
    for spec, message in (
        (f"sam:{decoder},{decoder}", "is no image encoder: it takes image_embeddings"),
        (f"sam:{encoder},{encoder}", "is no decoder of the SAM family: it takes input_image"),
        (f"sam:{encoder}", "names 1 files"),
        (f"sam:{tmp_path / 'none.onnx'},{decoder}", "none.onnx' is no file"),
        (f"sam:{tmp_path / 'text.onnx'},{decoder}", "openvino can't compile"),
    ):
        with pytest.raises(CliprlError, match=message) as error:
            open_promptable(spec)
        assert "\n" not in str(error.value)
