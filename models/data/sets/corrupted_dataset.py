"""A corrupted view of a data set, in stretches of consecutive frames with one kind of corruption."""

from __future__ import annotations

import cv2
import numpy as np

from cliprl.models.data.augmentation.endoscope_corruptions import CORRUPTIONS, apply_corruption
from cliprl.models.data.image_mask_dataset import DatasetView, LabelledDataset
from cliprl.models.data.sample import Sample


class CorruptedDataset(DatasetView):
    """`dataset` at the network's `size` (height, width), in as many stretches as there are corruptions, all of one severity."""

    def __init__(self, dataset: LabelledDataset, severity: float, size: tuple[int, int]) -> None:
        super().__init__(dataset, dataset.classes)
        self.severity, self.size = severity, size

    def __getitem__(self, index: int) -> Sample:
        sample, kinds = self.dataset[index], list(CORRUPTIONS)
        kind = kinds[index * len(kinds) // len(self)]
        across = self.size[::-1]
        image = cv2.resize(sample.image, across, interpolation=cv2.INTER_AREA).astype(np.uint8)
        # At the centers of pixels: INTER_NEAREST takes corners, by which labels lie half a pixel right of and below the image.
        labels = cv2.resize(sample.labels, across, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.uint8)
        return Sample(
            apply_corruption(image, kind, self.severity, np.random.default_rng(index)), labels, sample.sequence
        )
