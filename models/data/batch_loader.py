"""Batches: a mixture of data sets, augmented, drawn from the step's number alone and made ahead of their use."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from cliprl.models.data.augmentation.augment import MAX_ZOOM, MILD_SEVERITY, STRIDE, Geometry, Photometry
from cliprl.models.data.augmentation.endoscope_corruptions import CORRUPTIONS, apply_corruption
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.sample import Image, Sample
from cliprl.models.training.parallel import batch_share, process_cpus

Item = TypeVar("Item")
# Batches made ahead at least, by threads (OpenCV and NumPy release the interpreter's lock).
MIN_PREFETCH = 3
# Share of policy samples that are left clean, and of those whose frame before is unknown.
CLEAN_SHARE, FIRST_FRAME_SHARE = 0.3, 0.15


@dataclass(frozen=True, slots=True)
class Mixture:
    """Data sets, their shares of a batch, and the `variety` of views and cameras that they are seen with (`augment`)."""

    datasets: Sequence[LabelledDataset]
    shares: Sequence[float]
    variety: float = 1.0

    def draw(self, rng: np.random.Generator) -> tuple[LabelledDataset, int]:
        """A data set by its share, and the index of one of its samples."""
        weights = np.array(self.shares) / np.sum(self.shares)
        dataset = self.datasets[int(rng.choice(len(self.datasets), p=weights))]
        return dataset, int(rng.integers(len(dataset)))


class BatchLoader(Generic[Item]):
    """Calls `make(step)` ahead of its use on other threads; 0 of them are as many as this process's share of the processors.

    Steps must be asked for in order; the first may be any. `waited` is the time in seconds that callers have waited in all.
    """

    def __init__(self, make: Callable[[int], Item], threads: int = 0) -> None:
        threads = threads or process_cpus()
        self._make, self._ahead, self.waited = make, max(MIN_PREFETCH, threads), 0.0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="batches")
        self._futures: dict[int, Future[Item]] = {}

    def __call__(self, step: int) -> Item:
        """What `make(step)` returns."""
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
    stride: int = STRIDE,
) -> tuple[Tensor, Tensor]:
    """Images uint8 (B, H, W, 3) and label codes int64 (B, H/stride, W/stride): this process's share of a step's batch.

    Pictures are corrupted up to `severity`, and views span up to `zoom` of their width.
    """
    pictures = []
    for n in batch_share(size):
        rng = np.random.default_rng((seed, step, n))
        dataset, index = mixture.draw(rng)
        sample = dataset[index]
        image, labels = Geometry.draw(rng, _size(sample), target, zoom, mixture.variety).apply(sample, target, stride)
        pictures.append(Photometry.draw(rng, severity, mixture.variety).apply(image, labels, rng))
    return _stack([p[0] for p in pictures]), _stack([p[1] for p in pictures]).long()


@dataclass(frozen=True, slots=True)
class FramePairs:
    """Frames and the frames before them, uint8 (B, H, W, 3), labels int64 (B, h, w) of the later ones; `first` bool (B,)
    marks those whose frame before is to be taken as unknown."""

    before: Tensor
    now: Tensor
    labels: Tensor
    first: Tensor

    def to(self, device: torch.device) -> FramePairs:
        """The same on a device."""
        return FramePairs(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


def pair_batch(
    mixture: Mixture, size: int, target: tuple[int, int], seed: int, step: int, severity: float, zoom: float = MAX_ZOOM
) -> FramePairs:
    """Two successive frames for each of this process's share of a step's samples.

    They are corrupted in one way, the earlier one often less, up to `severity`; views span up to `zoom` of their width.
    """
    columns: list[list[Image]] = [[], [], []]
    first = []
    for n in batch_share(size):
        rng = np.random.default_rng((seed, step, n))
        for column, picture in zip(columns, _pair(mixture, target, rng, severity, zoom), strict=True):
            column.append(picture)
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
    """The frame before in the same clip; the frame itself where there is none."""
    return dataset[index - 1 if index and dataset.clip(index - 1) == dataset.clip(index) else index]


def _size(sample: Sample) -> tuple[int, int]:
    height, width = sample.labels.shape
    return height, width


def _stack(pictures: Sequence[Image]) -> Tensor:
    return torch.from_numpy(np.stack(pictures))
