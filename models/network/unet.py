"""A plain U-Net for comparison, with the pretrained encoder, images, losses and steps of the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from cliprl.engines import Bundle, ClassSpec, CompiledBundle, Manifest, UsageError
from cliprl.models.config.config import Recipe
from cliprl.models.data.batch_loader import Mixture
from cliprl.models.data.sample import allowed_classes, instrument_classes
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.torch_predictor import ModuleEngine
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.training.losses import dice_loss, partial_cross_entropy
from cliprl.models.training.parallel import autocast
from cliprl.models.training.stages.gradient_stage import GradientStage
from cliprl.models.training.stages.supervised import supervised_batches


class UNet(nn.Module):
    """segmentation-models-pytorch's U-Net over the tower of `network`, whose weights and frozen stages it copies.

    It answers at full resolution, and for the classes it was made with alone.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, network: ClipSegmenter, recipe: Recipe, classes: int) -> None:
        super().__init__()
        tower = recipe.network.tower
        try:
            self.net = smp.Unet(f"tu-{tower}", encoder_weights=None, classes=classes)
        except (KeyError, RuntimeError) as error:
            raise UsageError(
                f"network.tower '{tower}' can't be a U-Net's encoder: give a timm convolutional one"
            ) from error
        encoder, own = self.encoder, network.tower.state_dict()
        encoder.load_state_dict({name: own[name] for name in encoder.state_dict()})
        trained = {name: p.requires_grad for name, p in network.tower.named_parameters()}
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(trained[name])
        self.register_buffer("mean", network.mean.clone())
        self.register_buffer("deviation", network.deviation.clone())

    @property
    def encoder(self) -> nn.Module:
        """The pretrained part."""
        encoder: nn.Module = self.net.encoder.model
        return encoder

    def train(self, mode: bool = True) -> UNet:
        """As usual, but the encoder's batch statistics stay its own, as in the network that this is compared with."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, image: Tensor, text: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images uint8 (B, H, W, 3) to features, of which there are none (B, 1, 1, 1), and logits (B, K, H, W)."""
        pixels = (image.to(torch.float32).permute(0, 3, 1, 2) - self.mean) / self.deviation
        return pixels.new_zeros(len(image), 1, 1, 1), self.net(pixels)


class UNetStage(GradientStage):
    """Trains a U-Net as the supervised stage trains the base: step by step the same images, and the same settings, but without
    an average of the weights."""

    name = "unet"

    def __init__(self, unet: UNet, mixture: Mixture, classes: Sequence[ClassSpec], recipe: Recipe) -> None:
        config = recipe.supervised
        self.unet, self.config, self.precision = unet, config, recipe.precision
        self.allowed = torch.from_numpy(allowed_classes(classes))
        self.instrument = torch.from_numpy(instrument_classes(classes))
        slow = {id(p) for p in unet.encoder.parameters()}
        trained = [p for p in unet.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if id(p) in slow], "lr": config.tower_rate},
            {"params": [p for p in trained if id(p) not in slow], "lr": config.rate},
        ]
        super().__init__("unet", unet, torch.optim.AdamW(groups, weight_decay=1e-2), config.steps)
        self.batches = supervised_batches(mixture, recipe, stride=1)

    def step(self, index: int) -> Mapping[str, float]:
        """One batch."""
        self.unet.train()
        image, labels = self.batches(index)
        with autocast(self.precision, image.device):
            _, logits = self.unet(image)
        logits = logits.float()
        cross_entropy = partial_cross_entropy(logits, labels, self.allowed).mean()
        dice = dice_loss(logits, labels, self.instrument, self.allowed)
        self.update(cross_entropy + self.config.dice * dice)
        return {"cross-entropy": cross_entropy.item(), "dice": dice.item()}


def unet_predictor(unet: UNet, classes: Sequence[ClassSpec], height: int, width: int) -> ImageSegmenter:
    """A U-Net on the very path that a bundle is scored on, without refinement."""
    manifest = Manifest("unet", tuple(classes), height, width, stride=1, steps=0)
    encoder = ModuleEngine(unet, ("features", "logits"))
    bundle = Bundle(Path(), manifest, torch.zeros(len(classes), 1).numpy())
    return ImageSegmenter(bundle, engines=CompiledBundle(encoder, encoder, {}), steps=0)
