"""Data sets whose pictures have captions, which the contrastive stage learns from."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from cliprl.models.data.image_mask_dataset import LabelledDataset


@runtime_checkable
class CaptionDataset(LabelledDataset, Protocol):
    """A data set whose pictures have captions."""

    def caption(self, index: int) -> str:
        """What a picture shows, in words."""
        ...
