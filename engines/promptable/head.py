"""The promptable head of a bundle: a small network that corrects a mask on the features which the bundle computes anyway."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines.backends.engine import Engine
from cliprl.engines.backends.registry import compile_engine
from cliprl.engines.bundle.bundle import PROMPT_HEAD, Bundle, open_bundle
from cliprl.engines.bundle.input_size import one_size_only, size_of
from cliprl.engines.errors import BundleError, EngineError, UsageError
from cliprl.engines.promptable.hints import cell_descriptors, hint_maps
from cliprl.engines.promptable.interface import ImageEmbedding, PromptedMasks, prompt_arrays
from cliprl.engines.promptable.outline import ANSWER_SHARE, moved_outline, settled_outline
from cliprl.engines.promptable.prompt_maps import prompt_maps
from cliprl.engines.promptable.registry import register_promptable
from cliprl.engines.selection.load_engines import load_engines

# A clicked cell has a logit of at least this absolute value, as the click says. Cells within `_NEAR` cells of a click count as
# clicked: those between which the mask is interpolated there.
CLICKED, _NEAR = 1.0, 1.01
# Without a present mask the object lies in its boxes: outside of them its logits are -_OUTSIDE at most.
_OUTSIDE = 4.0
# A click also holds for the cells up to the edge of the present mask, at most `_REACH` of them.
_REACH = 8.0


class MaskHead:
    """Corrects masks on the features of `bundle`. Raises UsageError for a bundle without a head."""

    name = "head"

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        if PROMPT_HEAD not in bundle.manifest.hashes:
            raise UsageError(
                f"bundle '{bundle.manifest.name}' has no {PROMPT_HEAD}: add it with python -m cliprl.models.promptable.train, "
                "or take another promptable network"
            )
        self.bundle, self._threads = bundle, threads
        manifest = bundle.manifest
        self._grid = manifest.height // manifest.stride, manifest.width // manifest.stride
        self._engine = self._compiled()
        self._encoder: Any = None

    def _compiled(self) -> Engine:
        """The head at the input size of the bundle. Raises BundleError for a graph made for one size, or without hints."""
        path = self.bundle.path / PROMPT_HEAD
        engine = compile_engine(path, precision="f32", threads=self._threads)
        if "hints" not in engine.inputs:
            raise BundleError(
                f"{path} has no input 'hints', as heads of an earlier version: train it anew with python -m "
                f"cliprl.models.promptable.train {self.bundle.path}"
            )
        if self.bundle.own_size is None:
            return engine
        shapes = {name: (*spec.shape[:2], *self._grid) for name, spec in engine.inputs.items()}
        shapes["image"] = (1, *size_of(self.bundle), 3)
        try:
            return compile_engine(path, precision="f32", threads=self._threads, shapes=shapes)
        except EngineError as error:
            raise BundleError(one_size_only(self.bundle, PROMPT_HEAD)) from error

    def correct(
        self,
        features: NDArray[Any],
        image: NDArray[np.uint8],
        points: NDArray[np.floating],
        labels: NDArray[np.integer],
        boxes: NDArray[np.floating],
        logits: NDArray[np.floating],
        *,
        box_is_newest: bool = False,
    ) -> NDArray[np.float32]:
        """Return the corrected logits float32 (h, w) of a mask.

        features (1, D, h, w) and image uint8 (1, H, W, 3) are those of the encoder. points (N, 2), with labels (N,) of 1 and 0,
        and boxes (M, 4) are in pixels of the image, the oldest first. logits (h, w) are of the present mask, 0 if there is none.
        box_is_newest: the last prompt is a box, which may change the mask anywhere.
        """
        cells = np.array([self._grid[1] / image.shape[2], self._grid[0] / image.shape[1]])
        points, boxes = np.asarray(points) * cells, np.asarray(boxes) * np.tile(cells, 2)
        newest = len(points) > 0 and not box_is_newest
        before = moved = np.asarray(logits, np.float32)
        if newest:
            moved = moved_outline(before, points[-1], bool(labels[-1]), image.shape[2] // self._grid[1])
        present, held = held_mask(moved, points, labels, newest=newest)
        inputs: dict[str, NDArray[Any]] = {
            "features": np.asarray(features, np.float32),
            "image": image,
            "prompts": prompt_maps(points, labels, boxes, self._grid)[None],
            "logits": present[None, None],
        }
        descriptors = cell_descriptors(features, image)
        inputs["hints"] = hint_maps(descriptors, present, held, points, labels, boxes, newest=newest)[None]
        mask = np.array(self._engine.run(inputs)["mask"][0, 0], np.float32)
        if len(boxes) and not np.any(logits):
            np.minimum(mask, -_OUTSIDE, out=mask, where=inputs["prompts"][0, -1] == 0)
        if newest:
            if moved is not before:
                mask = ANSWER_SHARE * mask + (1 - ANSWER_SHARE) * moved
            mask = settled_outline(mask, image[0], points, labels)
            held |= held_mask(before, points, labels, newest=True)[1]
        hold_clicks(mask, held, points, labels)
        return mask

    def encode(self, image: NDArray[np.uint8]) -> ImageEmbedding:
        """Run the bundle's encoder on an image uint8 (H, W, 3) RGB, stretched to the size of its input."""
        manifest = self.bundle.manifest
        if self._encoder is None:
            self._encoder = load_engines(self.bundle, threads=self._threads).encoder
        small = cv2.resize(image, (manifest.width, manifest.height), interpolation=cv2.INTER_AREA)[None].astype(
            np.uint8
        )
        outputs = self._encoder.run({"image": small, "text": self.bundle.embeddings})
        tensors: dict[str, NDArray[Any]] = {"features": np.array(outputs["features"], np.float32), "image": small}
        return ImageEmbedding(image.shape[0], image.shape[1], tensors)

    def masks(
        self,
        embedding: ImageEmbedding,
        points: NDArray[np.float32],
        labels: NDArray[np.int64],
        boxes: NDArray[np.float32],
    ) -> PromptedMasks:
        """Segment one object without a present mask. There is one candidate; its score is the expected IoU of its logits."""
        points, labels, boxes = prompt_arrays(embedding, points, labels, boxes)
        image = embedding.tensors["image"]
        scale = np.array([image.shape[2] / embedding.width, image.shape[1] / embedding.height])
        start = np.zeros(self._grid, np.float32)
        found = self.correct(
            embedding.tensors["features"], image, points * scale, labels, boxes * np.tile(scale, 2), start
        )
        size = (embedding.width, embedding.height)
        logits = np.asarray(cv2.resize(found, size, interpolation=cv2.INTER_LINEAR), np.float32)
        return PromptedMasks(logits[None], np.array([expected_iou(found)], np.float32))


def held_mask(
    logits: NDArray[np.floating], points: NDArray[np.floating], labels: NDArray[np.integer], *, newest: bool
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return present logits (h, w) that are right where the newest click holds, and those cells. Points are in cells."""
    present = np.array(logits, np.float32)
    held = np.zeros(present.shape, bool)
    if newest:
        held = _cells_to_edge(present, points[-1], bool(labels[-1]))
        _hold(present, held, 2 * CLICKED, bool(labels[-1]))
    return present, held


def hold_clicks(
    mask: NDArray[np.float32],
    held: NDArray[np.bool_],
    points: NDArray[np.floating],
    labels: NDArray[np.integer],
) -> None:
    """Make `mask` right in the cells `held` by the newest click and at all clicks, in place.

    A cell that is near to several clicks is that of the nearest one.
    """
    if len(points):
        _hold(mask, held, CLICKED, bool(labels[-1]))
        rows, columns = np.indices(mask.shape) + 0.5
        distances = np.hypot(columns - points[:, :1, None], rows - points[:, 1:, None])
        clicked, positive = distances.min(axis=0) < _NEAR, np.asarray(labels)[distances.argmin(axis=0)] > 0
        _hold(mask, clicked & positive, CLICKED, True)
        _hold(mask, clicked & ~positive, CLICKED, False)


def _hold(logits: NDArray[np.float32], cells: NDArray[np.bool_], least: float, positive: bool) -> None:
    """Make the logits of some cells at least `least` on the side that a click says, in place."""
    logits[cells] = np.maximum(logits[cells], least) if positive else np.minimum(logits[cells], -least)


def _cells_to_edge(logits: NDArray[np.float32], point: NDArray[np.floating], positive: bool) -> NDArray[np.bool_]:
    """Return the cells around a point (x, y) as far as the present mask is wrong there, bool (h, w)."""
    wrong = ((logits > 0) != positive).astype(np.uint8)
    row, column = (min(max(int(at), 0), size - 1) for at, size in zip(point[::-1], logits.shape, strict=True))
    reach = min(0.9 * float(cv2.distanceTransform(wrong, cv2.DIST_L2, cv2.DIST_MASK_5)[row, column]), _REACH)
    rows, columns = np.indices(logits.shape) + 0.5
    return np.asarray(np.hypot(columns - point[0], rows - point[1]) < reach)


@register_promptable("head:BUNDLE")
def open_head(argument: str, threads: int) -> MaskHead:
    """Open the head of the bundle that `argument` names."""
    return MaskHead(open_bundle(argument), threads)


def expected_iou(logits: NDArray[np.float32]) -> float:
    """Return the IoU that a mask's own probabilities expect of it, 0..1; 0 for an empty mask."""
    probability = 1 / (1 + np.exp(-logits))
    inside = logits > 0
    both = float(probability[inside].sum())
    union = np.count_nonzero(inside) + float(probability[~inside].sum())
    return both / union if inside.any() else 0.0
