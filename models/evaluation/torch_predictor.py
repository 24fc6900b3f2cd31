"""Score a network that is not exported, on the path of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from cliprl.engines import Bundle, CompiledBundle, Manifest
from cliprl.engines.backends.engine import Engine, TensorSpec
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.export.export import GRID_STRIDE, TrainedModel
from cliprl.models.network.text import class_embeddings


class ModuleEngine(Engine):
    """A module behind the interface of a compiled engine: named arrays in and out, of any size, so that none is listed."""

    backend, precision = "torch", "f32"
    inputs: Mapping[str, TensorSpec] = MappingProxyType({})
    outputs: Mapping[str, TensorSpec] = MappingProxyType({})

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        self._module, self._names = module.eval(), names

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Run once; inputs go to the module's arguments of the same names."""
        with torch.no_grad():
            values = self._module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return {name: value.numpy() for name, value in zip(self._names, values, strict=True)}


class TorchPredictor(ImageSegmenter):
    """An ImageSegmenter for a network that is not exported: torch runs in place of the engines."""

    def __init__(self, model: TrainedModel, **settings: Any) -> None:
        with torch.no_grad():
            text = class_embeddings(model.network, model.classes).numpy()
        manifest = Manifest("network", tuple(model.classes), model.height, model.width, GRID_STRIDE, model.steps)
        encoder = ModuleEngine(model.network, ("features", "logits"))
        refiner = ModuleEngine(model.refiner, ("refined", "moved"))
        super().__init__(Bundle(Path(), manifest, text), engines=CompiledBundle(encoder, refiner, {}), **settings)
