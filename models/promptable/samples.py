"""Training samples of the promptable head: corrupted images as the pipeline sees them, and objects in them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle
from cliprl.models.data.augmentation.augment import Geometry, Photometry
from cliprl.models.data.augmentation.endoscope_corruptions import CORRUPTIONS, apply_corruption
from cliprl.models.data.batch_loader import Mixture
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT, Image, instrument_classes
from cliprl.pipeline.core.viewport import Viewport, inside_cells, network_to_frame
from cliprl.pipeline.correction.class_odds import class_odds
from cliprl.pipeline.correction.corrector import segmented_draft
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sources.images.array_frame import frame_of_image

# Share of images with a corruption, its strongest severity, and the shares of objects that are all instruments as one.
CORRUPTED, SEVERITY, ALL_INSTRUMENTS = 0.8, 5.0, 0.75
# Shares of present masks that are empty, and that are the truth at another place, far away or near.
NO_MASK, FAR, NEAR = 0.06, 0.10, 0.08
# Those shifts, as a share of the width (standard deviation), and the fewest pixels of an object.
_FAR, _NEAR, _LEAST_AREA = 0.05, 0.012, 40
# Share of objects whose outline is another annotator's: each region is moved by a share of the width, turned by some degrees
# (standard deviations), and larger or smaller by up to some pixels.
OTHER_OUTLINE, OUTLINE_SHIFT, OUTLINE_TURN, OUTLINE_PIXELS = 0.6, 0.009, 1.5, 2
# Stride of the truth against the image.
TRUTH_STRIDE = 2


@dataclass(frozen=True, slots=True)
class PromptView:
    """An image as the pipeline sees it: features float16 (D, h, w), network input uint8 (H, W, 3), logits float16 (K, h, w).

    labels uint8 (H / 2, W / 2) index the classes of the bundle.
    """

    features: NDArray[np.float16]
    image: Image
    logits: NDArray[np.float16]
    labels: Image


@dataclass(frozen=True, slots=True)
class PromptSample:
    """One object of a view: its truth uint8 (H / 2, W / 2) of 1, 0 and IGNORE, and logits float32 (h, w) of the present mask."""

    features: NDArray[np.float32]
    image: Image
    truth: Image
    logits: NDArray[np.float32]


def draw_view(bundle: Bundle, mixture: Mixture, segmenter: Segmenter, rng: np.random.Generator) -> PromptView:
    """Draw a view of an image of `mixture`, whose labels index the bundle's classes, and segment it; it shows an object."""
    size = bundle.manifest.height, bundle.manifest.width
    while True:
        dataset, index = mixture.draw(rng)
        sample = dataset[index]
        height, width = sample.labels.shape
        geometry = Geometry.draw(rng, (height, width), size)
        image, labels = Photometry.draw(rng).apply(*geometry.apply(sample, size, TRUTH_STRIDE), rng)
        if rng.random() < CORRUPTED:
            image = apply_corruption(image, str(rng.choice(list(CORRUPTIONS))), rng.uniform(0, SEVERITY), rng)
        segmenter.reset()
        draft = segmented_draft(segmenter, frame_of_image(image))
        labels = labels_in_view(labels, draft.view)
        if _seen(labels, np.flatnonzero(instrument_classes(bundle.manifest.classes))):
            return PromptView(
                draft.features[0].astype(np.float16), draft.image[0], draft.logits.astype(np.float16), labels
            )


def draw_object(view: PromptView, instrument: NDArray[np.bool_], rng: np.random.Generator) -> PromptSample:
    """Draw an object of a view, and a present mask of it. `instrument` tells for each class whether it is one.

    The view is mirrored at random: features are nearly those of a mirrored image.
    """
    truth, classes = _object(view.labels, instrument, rng)
    if rng.random() < OTHER_OUTLINE:
        truth = _other_outline(truth, rng)
    odds, kind = class_odds(view.logits.astype(np.float32), classes), rng.random()
    if kind < NO_MASK:
        odds = np.zeros_like(odds)
    elif kind < NO_MASK + FAR + NEAR:
        odds = _moved(truth, odds.shape, _FAR if kind < NO_MASK + FAR else _NEAR, rng)
    features, image = view.features.astype(np.float32), view.image
    if rng.random() < 0.5:
        features, image, truth, odds = features[:, :, ::-1], image[:, ::-1], truth[:, ::-1], odds[:, ::-1]
    if rng.random() < 0.5:
        features, image, truth, odds = features[:, ::-1], image[::-1], truth[::-1], odds[::-1]
    return PromptSample(features, image, truth, odds)


def labels_in_view(labels: Image, view: Viewport) -> Image:
    """Return the labels of a frame, at `TRUTH_STRIDE`, as those of the network input, taken at the centers of its cells.

    Its padding is IGNORE."""
    found = np.full((view.network_height // TRUTH_STRIDE, view.network_width // TRUTH_STRIDE), IGNORE, np.uint8)
    matrix, placed = network_to_frame(view), inside_cells(replace(view, circle=None), *found.shape)
    columns, rows = (
        ((np.arange(size) + 0.5) * matrix[axis, axis] + matrix[axis, 2] / TRUTH_STRIDE).astype(int)
        for axis, size in enumerate(found.shape[::-1])
    )
    within = np.clip(rows, 0, labels.shape[0] - 1)[:, None], np.clip(columns, 0, labels.shape[1] - 1)
    found[placed] = labels[within][placed]
    return found


def _seen(labels: Image, classes: NDArray[np.int64]) -> list[int]:
    """Return those of some classes, or INSTRUMENT, that enough pixels have."""
    return [c for c in (*map(int, classes), INSTRUMENT) if np.count_nonzero(labels == c) >= _LEAST_AREA]


def _object(labels: Image, instrument: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Image, NDArray[np.int64]]:
    """Return the truth of one object, which the labels show, and the classes that it has."""
    count, instruments = len(instrument), np.flatnonzero(instrument)
    table = np.full(256, IGNORE, np.uint8)
    single = [c for c in _seen(labels, np.arange(count)) if c != INSTRUMENT]
    if not single or (_seen(labels, instruments) and rng.random() < ALL_INSTRUMENTS):
        table[:count] = instrument
        table[[INSTRUMENT, NOT_INSTRUMENT]] = 1, 0
        return table[labels], instruments
    one = int(rng.choice(single))
    table[:count] = np.arange(count) == one
    table[INSTRUMENT], table[NOT_INSTRUMENT] = (IGNORE, 0) if instrument[one] else (0, IGNORE)
    return table[labels], np.array([one])


def _moved(truth: Image, grid: tuple[int, ...], shift: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the logits of the truth, shifted by a share of the width, and turned and zoomed in proportion."""
    center = truth.shape[1] / 2, truth.shape[0] / 2
    matrix = cv2.getRotationMatrix2D(center, np.rad2deg(rng.normal(0, 2 * shift)), np.exp(rng.normal(0, 2 * shift)))
    matrix[:, 2] += rng.normal(0, shift, 2) * truth.shape[1]
    moved = cv2.warpAffine((truth == 1).astype(np.float32), matrix, truth.shape[::-1])
    return np.asarray(cv2.resize(moved * 8 - 4, grid[::-1], interpolation=cv2.INTER_AREA), np.float32)


def _other_outline(truth: Image, rng: np.random.Generator) -> Image:
    """Return the truth as another annotator would draw it: each region a little moved and turned, and larger or smaller.

    Labels from kinematics are off like this: an instrument as a whole.
    """
    known = truth != IGNORE
    count, regions, _, centers = cv2.connectedComponentsWithStats((truth == 1).astype(np.uint8), connectivity=8)
    other = np.zeros_like(truth)
    for number in range(1, count):
        turn = cv2.getRotationMatrix2D(tuple(map(float, centers[number])), rng.normal(0, OUTLINE_TURN), 1)
        turn[:, 2] += rng.normal(0, OUTLINE_SHIFT, 2) * truth.shape[1]
        region = (regions == number).astype(np.uint8)
        # What the edge of the image cuts goes on behind it.
        moved = cv2.warpAffine(region, turn, truth.shape[::-1], None, cv2.INTER_NEAREST, cv2.BORDER_REPLICATE)
        np.maximum(other, moved, out=other)
    pixels = int(rng.integers(-OUTLINE_PIXELS, OUTLINE_PIXELS + 1))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(pixels) + 1,) * 2)
    resized = (cv2.dilate if pixels > 0 else cv2.erode)(other, kernel)
    return np.where(known, resized, IGNORE).astype(np.uint8)
