"""Copy-paste composition: rendered instruments on real tissue, for real texture beside exact labels."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.models.data.augmentation.augment import Photometry
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT, Image, Sample

# The layer coverage from which on a pixel counts as instrument.
OPAQUE_ALPHA = 128
# Share of compositions with smoothed tissue: pale mucosa and wet walls have no texture either.
SMOOTH_SHARE = 0.4
# Share of compositions whose instruments are nearly black, as insulated laparoscopic shafts are.
BLACK_SHARE = 0.2
# Largest number of pale folds on smoothed tissue.
MAX_FOLDS = 3
# Share of compositions without instruments.
NO_INSTRUMENT_SHARE = 0.2
# Compositions of each layer.
REPEATS = 4


class LayeredDataset(LabelledDataset, Protocol):
    """A data set with separate instrument layers: rendered or ray-traced scenes."""

    def instruments(self, index: int) -> tuple[Image, Image]:
        """Return the instruments of a sample: RGBA uint8 (H, W, 4) and labels uint8 (H, W)."""


class CopyPasteDataset(LabelledDataset):
    """Compositions of the instruments of `scenes` on images of `tissue`, each seeded with its index."""

    name = "composed"

    def __init__(self, tissue: LabelledDataset, scenes: LayeredDataset, seed: int) -> None:
        self.tissue, self.scenes, self.seed = tissue, scenes, seed
        self.sources, self.classes = (tissue, scenes), scenes.classes

    def __len__(self) -> int:
        return REPEATS * len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, index))
        layer, layer_labels = self.scenes.instruments(index % len(self.scenes))
        below = _crop(self.tissue[int(rng.integers(len(self.tissue)))], rng, layer_labels.shape)
        if rng.random() < SMOOTH_SHARE:
            below = _smoothed(below, rng)
        if rng.random() < NO_INSTRUMENT_SHARE:
            layer = np.zeros_like(layer)
        flip = int(rng.integers(-1, 3))
        if flip < 2:
            layer, layer_labels = cv2.flip(layer, flip).astype(np.uint8), cv2.flip(layer_labels, flip).astype(np.uint8)
        camera = Photometry.draw(rng)
        tissue = camera.recolor(below.image)
        image = _over(tissue, _relit(layer, rng), _shadow(layer[..., 3], rng))
        labels = np.where(layer[..., 3] >= OPAQUE_ALPHA, layer_labels, below.labels)
        return Sample(image, labels.astype(np.uint8), self.sequence(index))

    def sequence(self, index: int) -> str:
        """Return the sequence of a sample: each has its own."""
        return f"composed {index}"


def _crop(sample: Sample, rng: np.random.Generator, shape: tuple[int, ...]) -> Sample:
    """Crop a random part of an image and scale it to `shape` (height, width)."""
    height, width = sample.labels.shape
    share = rng.uniform(0.4, 1.0)
    h, w = int(height * share), int(width * share)
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    part = np.s_[top : top + h, left : left + w]
    size = (shape[1], shape[0])
    image = cv2.resize(sample.image[part], size, interpolation=cv2.INTER_AREA if h > shape[0] else cv2.INTER_LINEAR)
    labels = cv2.resize(sample.labels[part], size, interpolation=cv2.INTER_NEAREST_EXACT)
    return Sample(image.astype(np.uint8), labels.astype(np.uint8), sample.sequence)


def _smoothed(sample: Sample, rng: np.random.Generator) -> Sample:
    """Remove the texture of the tissue; a tool in it can no longer be recognized and is ignored."""
    sigma = np.exp(rng.uniform(np.log(2), np.log(0.06 * len(sample.labels))))
    image = cv2.GaussianBlur(sample.image, (0, 0), float(sigma)).astype(np.uint8)
    labels = np.where(sample.labels == INSTRUMENT, IGNORE, sample.labels).astype(np.uint8)
    for _ in range(int(rng.integers(MAX_FOLDS + 1))):
        _fold(image, labels, rng)
    return Sample(image, labels, sample.sequence)


def _fold(image: Image, labels: Image, rng: np.random.Generator) -> None:
    """Lay a smooth, round, pink to white fold of mucosa over the tissue, lit from the front, in place."""
    height, width = labels.shape
    y, x = np.mgrid[:height, :width].astype(np.float32) / np.float32(width)
    angle, (cx, cy) = rng.uniform(0, np.pi), rng.uniform(-0.2, 1.2, 2)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u = (c * (x - np.float32(cx)) + s * (y - np.float32(cy * height / width))) / np.float32(rng.uniform(0.2, 0.9))
    v = (c * (y - np.float32(cy * height / width)) - s * (x - np.float32(cx))) / np.float32(rng.uniform(0.1, 0.5))
    inside = 1 - u * u - v * v
    light = np.sqrt(np.maximum(inside, 0)) ** np.float32(rng.uniform(0.5, 2.0))
    tint = np.array([1, *(1 - rng.uniform(0.02, 0.4) * np.array([1, rng.uniform(0.8, 1.3)]))], np.float32)
    color = light[..., None] * tint * np.float32(rng.uniform(140, 420))
    edge = np.clip(inside * np.float32(rng.uniform(5, 40)), 0, 1)[..., None]
    image[...] = np.clip(image * (1 - edge) + color * edge, 0, 255).astype(np.uint8)
    labels[edge[..., 0] > 0.5] = NOT_INSTRUMENT


def _relit(layer: Image, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the layer, float32 (H, W, 4), with random brightness, contrast and tint."""
    rgb = (layer[..., :3].astype(np.float32) / 255) ** np.float32(np.exp(rng.normal(0, 0.35)))
    contrast, gain = np.float32(np.exp(rng.normal(0, 0.2))), np.exp(rng.normal(0, 0.3)) * np.exp(rng.normal(0, 0.08, 3))
    gain = gain * rng.uniform(0.08, 0.4) if rng.random() < BLACK_SHARE else gain
    rgb = ((rgb - np.float32(0.4)) * contrast + np.float32(0.4)) * gain.astype(np.float32)
    return np.dstack([np.clip(rgb * 255, 0, 255), layer[..., 3:].astype(np.float32)]).astype(np.float32)


def _shadow(coverage: Image, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the light on the tissue beside the instruments, float32 (H, W): a soft, shifted shadow."""
    height, width = coverage.shape
    shift = np.array([[1, 0, rng.normal(0, 0.03) * width], [0, 1, rng.uniform(0, 0.05) * height]])
    moved = cv2.warpAffine(coverage, shift, (width, height)).astype(np.float32) / 255
    soft = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.01, 0.03) * width)
    return (1 - np.float32(rng.uniform(0, 0.6)) * soft).astype(np.float32)


def _over(tissue: Image, layer: NDArray[np.float32], light: NDArray[np.float32]) -> Image:
    alpha = layer[..., 3:] / 255
    mixed = tissue.astype(np.float32) * light[..., None] * (1 - alpha) + layer[..., :3] * alpha
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
