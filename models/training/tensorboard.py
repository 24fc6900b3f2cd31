"""Log losses, learning rates, throughput and preview images for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch.utils.tensorboard import SummaryWriter

from cliprl.models.data.sample import Image
from cliprl.models.training.checkpoint import TrainingStage
from cliprl.models.training.throughput import Throughput


@runtime_checkable
class HasOptimizer(Protocol):
    """A stage with an optimizer."""

    optimizer: torch.optim.Optimizer


@runtime_checkable
class HasPreview(Protocol):
    """A stage with a preview image of its last batch."""

    def preview(self) -> Image | None:
        """Return frames beside their truth and their prediction, uint8 (H, W, 3) RGB; None before the first step."""
        ...


class TensorboardLog:
    """Writes event files to `folder`/STAGE; `tensorboard --logdir folder` shows them.

    Previews are logged every `draw_every` steps. If a stage resumes, later entries of the earlier run are hidden.
    """

    def __init__(self, folder: Path, draw_every: int) -> None:
        self.folder, self.draw_every = folder, max(1, draw_every)
        self._writers: dict[str, SummaryWriter] = {}

    def report(
        self, stage: TrainingStage, done: int, losses: Mapping[str, float], pace: Throughput | None = None
    ) -> None:
        """Log a step and, if known, its throughput."""
        writer = self._writers.get(stage.name)
        if writer is None:
            writer = self._writers[stage.name] = SummaryWriter(str(self.folder / stage.name), purge_step=done)
        if pace:
            writer.add_scalar("images per second", pace.images_per_second, done)
            writer.add_scalar("waiting for data", pace.waiting, done)
        for name, value in losses.items():
            writer.add_scalar(f"loss/{name}", value, done)
        if isinstance(stage, HasOptimizer):
            for number, group in enumerate(stage.optimizer.param_groups):
                writer.add_scalar(f"rate/{number}", group["lr"], done)
        if isinstance(stage, HasPreview) and (done % self.draw_every == 0 or done == stage.steps):
            image = stage.preview()
            if image is not None:
                writer.add_image("frame, truth, found", image, done, dataformats="HWC")

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
