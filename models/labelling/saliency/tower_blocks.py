"""The blocks of an image backbone: read the output of one, or compute on from a changed output."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cliprl.engines import UsageError
from cliprl.models.network.network import ClipSegmenter

# Of a backbone's blocks, the one whose output is studied: block 9 of 12 in a ViT, as in M2IB, stride 16 in a pyramid.
DEFAULT_DEPTH = 0.75


@dataclass(frozen=True, slots=True)
class TowerBlocks:
    """The chain of blocks of a network's backbone.

    `grid` (rows, columns) is that of the patches, and `prefix` the number of tokens before them; a convolutional backbone
    has feature maps (B, C, h, w), and `grid` is None.
    """

    network: ClipSegmenter
    blocks: tuple[nn.Module, ...]
    grid: tuple[int, int] | None
    prefix: int

    def number(self, block: int | None) -> int:
        """Return the number of a block, by default that at three quarters of the depth. Raises UsageError beyond the last."""
        if block is None:
            return max(0, int(DEFAULT_DEPTH * len(self.blocks)) - 1)
        if not 0 <= block < len(self.blocks):
            raise UsageError(
                f"the image backbone has blocks 0 to {len(self.blocks) - 1}, not {block}: choose one of them"
            )
        return block

    def output(self, pixels: Tensor, number: int, with_gradient: bool = False) -> tuple[Tensor, Tensor]:
        """Return the output of a block and the image embedding (B, E) of normalized pixels (B, 3, H, W)."""
        kept: list[Tensor] = []

        def keep(module: nn.Module, given: Any, output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_() if with_gradient else output)
            return kept[0]

        handle = self.blocks[number].register_forward_hook(keep)
        try:
            embedding: Tensor = self.network.clip.encode_image(pixels, normalize=True)
        finally:
            handle.remove()
        return kept[0], embedding

    def resume(self, pixels: Tensor, number: int, output: Tensor) -> Tensor:
        """Return the image embeddings (B, E) of a changed `output` of a block; the blocks up to it are skipped."""
        with (
            _replaced_forward(self.blocks[:number], lambda x: x),
            _replaced_forward([self.blocks[number]], lambda x: output),
        ):
            embedding: Tensor = self.network.clip.encode_image(pixels, normalize=True)
        return embedding

    def maps(self, output: Tensor) -> Tensor:
        """Return a block's output as maps (B, C, h, w), without the tokens before the patches."""
        if self.grid is None:
            return output
        cells = output[:, self.prefix :].transpose(1, 2)
        return cells.reshape(*cells.shape[:2], *self.grid)


def tower_blocks(network: ClipSegmenter) -> TowerBlocks:
    """Find the chain of blocks of a network's backbone. Raises UsageError for a backbone without one."""
    visual: Any = network.clip.visual
    trunk: Any = network.tower
    if trunk is visual:
        return TowerBlocks(network, tuple(visual.transformer.resblocks), tuple(visual.grid_size), 1)
    for name in ("blocks", "stages"):
        if isinstance(chain := getattr(trunk, name, None), nn.Sequential | nn.ModuleList):
            is_transformer = hasattr(trunk, "num_prefix_tokens")
            grid = tuple(trunk.patch_embed.grid_size) if is_transformer else None
            return TowerBlocks(network, tuple(chain), grid, int(trunk.num_prefix_tokens) if is_transformer else 0)
    layers = [layer for n in range(1, 5) if isinstance(layer := getattr(trunk, f"layer{n}", None), nn.Module)]
    if layers:
        return TowerBlocks(network, tuple(layers), None, 0)
    raise UsageError(
        f"the blocks of an image backbone {type(trunk).__name__} are not known: saliency needs a ViT, ConvNeXt, ResNet or "
        "EfficientNet"
    )


def network_pixels(network: ClipSegmenter, image: Any) -> Tensor:
    """Return an image uint8 (H, W, 3) as normalized pixels (1, 3, h, w) of the network's size."""
    pixels = network.normalize(torch.from_numpy(image)[None].to(network.log_scale.device))
    if pixels.shape[2:] == network.size:
        return pixels
    return nn.functional.interpolate(pixels, network.size, mode="bilinear", align_corners=False, antialias=True)


@contextmanager
def _replaced_forward(modules: Any, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Give modules another forward function, which takes the first argument."""

    def replacement(x: Tensor, *others: Any, **options: Any) -> Tensor:
        return forward(x)

    for module in modules:
        module.forward = replacement
    try:
        yield
    finally:
        for module in modules:
            del module.forward
