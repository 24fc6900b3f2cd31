"""The contrastive stage: align images and captions with the DHN-NCE loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cliprl.engines import UsageError
from cliprl.models.config.config import Recipe
from cliprl.models.data.augmentation.augment import Geometry, Photometry
from cliprl.models.data.batch_loader import BatchLoader
from cliprl.models.data.image_mask_dataset import CaptionDataset
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.training.losses import dhn_nce
from cliprl.models.training.parallel import autocast, batch_share, device_of, world_size
from cliprl.models.training.stages.gradient_stage import GradientStage, seed_step


class Contrastive(GradientStage):
    """Trains both encoders on whole images at half the network's size: captions need less detail than boundaries."""

    name = "contrastive"

    def __init__(self, network: ClipSegmenter, sets: Sequence[CaptionDataset], recipe: Recipe) -> None:
        self.network, self.config, self.seed = network, recipe.contrastive, recipe.seed
        self.places = [(data, indices) for data in sets for indices in _by_sequence(data)]
        if self.config.steps and len(self.places) < 2:
            raise UsageError(
                f"the contrastive stage has captions of {len(self.places)} scene, and needs 2 to tell them apart: raise "
                "data.scenes, name more seeds, or set contrastive.steps=0"
            )
        self.device, self.precision = device_of(network), recipe.precision
        self.size = (recipe.network.height // 2, recipe.network.width // 2)
        parameters = [p for p in network.clip.parameters() if p.requires_grad]
        super().__init__(
            "network", network, torch.optim.AdamW(parameters, lr=self.config.rate, weight_decay=1e-2), self.config.steps
        )
        self.batches = BatchLoader(self._batch, recipe.data.workers)

    def _batch(self, step: int) -> tuple[Tensor, list[str]]:
        """Return images uint8 (B, H, W, 3) of different sequences and their captions: the share of this process."""
        order = np.random.default_rng((self.seed, step)).permutation(len(self.places))[: self.config.batch]
        images, captions = [], []
        for n in batch_share(len(order)):
            rng = np.random.default_rng((self.seed, step, n))
            data, indices = self.places[int(order[n])]
            index = indices[int(rng.integers(len(indices)))]
            sample = data[index]
            image, labels = Geometry.whole(rng, sample.labels.shape, self.size).apply(sample, self.size)
            images.append(Photometry.draw(rng).apply(image, labels, rng)[0])
            captions.append(data.caption(index))
        return torch.from_numpy(np.stack(images)), captions

    def step(self, index: int) -> Mapping[str, float]:
        """Train one batch."""
        seed_step(self.seed, index)
        self.network.train()
        images, captions = self.batches(index)
        tokens = self.network.tokenize(captions)
        with autocast(self.precision, self.device):
            texts = self.network.encode_text(tokens.to(self.device))
            seen = self.network.encode_image(images.to(self.device, non_blocking=True))
        loss = dhn_nce(seen.float(), texts.float(), self.config.temperature, self.config.hardness)
        loss = loss / (len(captions) * world_size())
        self.update(loss)
        return {"dhn-nce": loss.item()}


def _by_sequence(data: CaptionDataset) -> list[list[int]]:
    """Return the sample indices of each sequence."""
    found: dict[str, list[int]] = {}
    for index in range(len(data)):
        found.setdefault(data.sequence(index), []).append(index)
    return list(found.values())
