"""Augmented views of labeled frames, encoded once up to the trained layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cliprl.models.data.augmentation.augment import MAX_ZOOM, MILD_SEVERITY, Geometry, Photometry
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.sample import Image
from cliprl.models.training.parallel import autocast
from cliprl.models.tuning.trainable_encoder import TrainableEncoder


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """`count` views of `size` (height, width), drawn with `seed` and `variety`, encoded in `precision`.

    `whole`: frames as they are, without augmentation.
    """

    count: int
    size: tuple[int, int]
    seed: int
    variety: float
    precision: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class EncodedViews:
    """N views: the boundary's tensors (N, ...) by name, label codes uint8 (N, h, w), and the untrained logits (N, K, h, w)."""

    boundary: dict[str, Tensor]
    labels: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def join(cls, parts: Sequence[EncodedViews]) -> EncodedViews:
        """Return the views of all parts in order."""
        names = parts[0].boundary
        return cls(
            {name: torch.cat([part.boundary[name] for part in parts]) for name in names},
            torch.cat([part.labels for part in parts]),
            torch.cat([part.logits for part in parts]),
        )


def encode_views(
    encoder: TrainableEncoder,
    dataset: LabelledDataset,
    settings: ViewSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> EncodedViews:
    """Draw views of all frames in turn, of frames spread evenly if there are more, and encode them.

    The count is rounded up to whole batches.

    `progress` is called with the number of encoded views and their total.
    """
    batch = encoder.batch
    total = -(-settings.count // batch) * batch
    parts = []
    for start in range(0, total, batch):
        drawn = [_draw(dataset, number, total, settings) for number in range(start, start + batch)]
        images, labels = (torch.from_numpy(np.stack(side)) for side in zip(*drawn, strict=True))
        with torch.no_grad(), autocast(settings.precision, images.device):
            boundary = encoder.encode(images)
            logits = encoder(boundary)
        parts.append(EncodedViews({k: _compact(v, settings) for k, v in boundary.items()}, labels, logits.half()))
        progress(start + batch, total)
    return EncodedViews.join(parts)


def _draw(dataset: LabelledDataset, number: int, total: int, settings: ViewSettings) -> tuple[Image, Image]:
    frames = len(dataset)
    sample = dataset[number % frames if total >= frames else number * frames // total]
    rng = np.random.default_rng((settings.seed, number))
    height, width = sample.labels.shape
    if settings.whole:
        return Geometry.stretched((height, width), settings.size).apply(sample, settings.size)
    geometry = Geometry.draw(rng, (height, width), settings.size, MAX_ZOOM, settings.variety)
    image, labels = geometry.apply(sample, settings.size)
    return Photometry.draw(rng, MILD_SEVERITY, settings.variety).apply(image, labels, rng)


def _compact(tensor: Tensor, settings: ViewSettings) -> Tensor:
    """Round as the trained part does in mixed precision."""
    return tensor.bfloat16() if settings.precision == "bf16" and tensor.is_floating_point() else tensor


def as_images(tensor: Tensor) -> Tensor:
    """Return maps (B, C, h, w) with channels last, in which convolutions are a quarter faster; other tensors as they are."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
