"""Data sets with captions, for the contrastive stage."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from cliprl.models.data.image_mask_dataset import LabelledDataset


@runtime_checkable
class CaptionDataset(LabelledDataset, Protocol):
    """A data set whose images have captions."""

    def caption(self, index: int) -> str:
        """Return the caption of an image."""
        ...
