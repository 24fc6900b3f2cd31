"""Prefetched batches from a mixture of data sets, augmented with randomness that depends on the step's number alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from cliprl.models.data.augmentation.augment import LABEL_STRIDE, MAX_ZOOM, MILD_SEVERITY, Geometry, Photometry
from cliprl.models.data.augmentation.endoscope_corruptions import CORRUPTIONS, apply_corruption
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.sample import Image, Sample
from cliprl.models.training.parallel import batch_share, process_cpus

Item = TypeVar("Item")
# Fewest prefetched batches (threads suffice: OpenCV and NumPy release the interpreter lock).
MIN_PREFETCH = 3
# Share of policy samples without corruption, and of those without a previous frame.
CLEAN_SHARE, FIRST_FRAME_SHARE = 0.3, 0.15


@dataclass(frozen=True, slots=True)
class Mixture:
    """Data sets, their shares of a batch, and the `variety` of the augmentation (see `augment`)."""

    datasets: Sequence[LabelledDataset]
    shares: Sequence[float]
    variety: float = 1.0

    def draw(self, rng: np.random.Generator) -> tuple[LabelledDataset, int]:
        """Draw a data set by its share, and the index of one of its samples."""
        weights = np.array(self.shares) / np.sum(self.shares)
        dataset = self.datasets[int(rng.choice(len(self.datasets), p=weights))]
        return dataset, int(rng.integers(len(dataset)))


class BatchLoader(Generic[Item]):
    """Calls `make(step)` in advance on other threads; 0 threads means one for each processor of this process.

    Steps must be requested in order, from any first step. `waited` is the total wait of callers in seconds.
    """

    def __init__(self, make: Callable[[int], Item], threads: int = 0) -> None:
        threads = threads or process_cpus()
        self._make, self._ahead, self.waited = make, max(MIN_PREFETCH, threads), 0.0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")
        self._futures: dict[int, Future[Item]] = {}

    def __call__(self, step: int) -> Item:
        """Return `make(step)`."""
        for n in range(step, step + self._ahead + 1):
            if n not in self._futures:
                self._futures[n] = self._pool.submit(self._make, n)
        start = time.monotonic()
        made = self._futures.pop(step).result()
        self.waited += time.monotonic() - start
        return made

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def labelled_batch(
    mixture: Mixture,
    size: int,
    target: tuple[int, int],
    seed: int,
    step: int,
    *,
    severity: float = MILD_SEVERITY,
    zoom: float = MAX_ZOOM,
    stride: int = LABEL_STRIDE,
) -> tuple[Tensor, Tensor]:
    """Return images uint8 (B, H, W, 3) and label codes int64 (B, H/stride, W/stride): this process's share of a batch.

    Images are corrupted up to `severity`, and views span up to `zoom` of their width.
    """
    images = []
    for n in batch_share(size):
        rng = np.random.default_rng((seed, step, n))
        dataset, index = mixture.draw(rng)
        sample = dataset[index]
        image, labels = Geometry.draw(rng, _size(sample), target, zoom, mixture.variety).apply(sample, target, stride)
        images.append(Photometry.draw(rng, severity, mixture.variety).apply(image, labels, rng))
    return _stack([p[0] for p in images]), _stack([p[1] for p in images]).long()


@dataclass(frozen=True, slots=True)
class FramePairs:
    """Frames and their previous frames, uint8 (B, H, W, 3), with labels int64 (B, h, w) of the frames; `first` bool (B,)
    marks frames whose previous frame counts as unknown."""

    before: Tensor
    now: Tensor
    labels: Tensor
    first: Tensor

    def to(self, device: torch.device) -> FramePairs:
        """Return a copy on a device."""
        return FramePairs(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


def pair_batch(
    mixture: Mixture, size: int, target: tuple[int, int], seed: int, step: int, severity: float, zoom: float = MAX_ZOOM
) -> FramePairs:
    """Return two successive frames for each sample of this process's share of a batch.

    Both have one kind of corruption up to `severity`, the earlier often less; views span up to `zoom` of their width.
    """
    columns: list[list[Image]] = [[], [], []]
    first = []
    for n in batch_share(size):
        rng = np.random.default_rng((seed, step, n))
        for column, image in zip(columns, _pair(mixture, target, rng, severity, zoom), strict=True):
            column.append(image)
        first.append(bool(rng.random() < FIRST_FRAME_SHARE))
    before, now, labels = (_stack(column) for column in columns)
    return FramePairs(before, now, labels.long(), torch.tensor(first))


def _pair(
    mixture: Mixture, target: tuple[int, int], rng: np.random.Generator, severity: float, zoom: float
) -> tuple[Image, Image, Image]:
    dataset, index = mixture.draw(rng)
    sample, earlier = dataset[index], _before(dataset, index)
    geometry = Geometry.draw(rng, _size(sample), target, zoom, mixture.variety)
    camera = Photometry.draw(rng, MILD_SEVERITY * mixture.variety, mixture.variety)
    views = []
    for one, view in ((earlier, geometry.moved(rng, target)), (sample, geometry)):
        views.append(camera.apply(*view.apply(one, target), rng))
    kind, strength = str(rng.choice(list(CORRUPTIONS))), 0.0 if rng.random() < CLEAN_SHARE else rng.uniform(0, severity)
    earlier_strength = strength * rng.choice([1.0, rng.random()])
    before, now = (
        apply_corruption(v[0], kind, s, rng) for v, s in zip(views, (earlier_strength, strength), strict=True)
    )
    return before, now, views[1][1]


def _before(dataset: LabelledDataset, index: int) -> Sample:
    """Return the previous frame of the clip, or the frame itself if there is none."""
    return dataset[index - 1 if index and dataset.clip(index - 1) == dataset.clip(index) else index]


def _size(sample: Sample) -> tuple[int, int]:
    height, width = sample.labels.shape
    return height, width


def _stack(images: Sequence[Image]) -> Tensor:
    return torch.from_numpy(np.stack(images))
