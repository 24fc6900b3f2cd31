"""What is scored: anything that sees a picture as the pipeline does. A bundle on its engines, or a network in torch."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cliprl.engines import Bundle, Manifest
from cliprl.models.data.sample import Image
from cliprl.models.export import STRIDE, Model
from cliprl.models.text import class_embeddings
from cliprl.pipeline.color import Color
from cliprl.pipeline.content import ContentDetector
from cliprl.pipeline.frame import Frame, allocate_planes
from cliprl.pipeline.refine import Refiner
from cliprl.pipeline.segmentation import Segmentation
from cliprl.pipeline.segmenter import Segmenter
from cliprl.pipeline.sources.planes import RgbWriter

# Full range loses least of an RGB picture on its way through Y'CbCr.
FRAME_COLOR = Color("bt709", full_range=True)
FRAME_TIME = Fraction(1, 25)


class Predictor(Segmenter):
    """The pipeline's own segmenter, fed with RGB pictures; arguments as there."""

    def __init__(self, bundle: Bundle | str | Path, **settings: Any) -> None:
        super().__init__(bundle, **settings)
        self._writer, self._index = RgbWriter(), 0

    def see(self, picture: Image) -> Segmentation:
        """Segment the next picture of a clip, uint8 (H, W, 3) RGB."""
        height, width = picture.shape[:2]
        frame = Frame(*allocate_planes(height, width), self._index, FRAME_TIME, self._index, FRAME_COLOR)
        self._writer.write(np.ascontiguousarray(picture), frame.luma, frame.chroma, FRAME_COLOR)
        self._index += 1
        return self(frame)

    def reset(self) -> None:
        """Forget all of the last clip, also where its picture lay in the frame."""
        super().reset()
        self._detector = ContentDetector(self.bundle.manifest.height, self.bundle.manifest.width)
        self._index = 0


class TorchEngine:
    """A module behind the interface of a compiled engine: named arrays in and out."""

    backend, precision = "torch", "f32"

    def __init__(self, module: nn.Module, outputs: tuple[str, ...]) -> None:
        self._module, self._outputs = module.eval(), outputs

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Run once; inputs go to the module's arguments of the same names."""
        with torch.no_grad():
            values = self._module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        return {name: value.numpy() for name, value in zip(self._outputs, values, strict=True)}


class NetworkPredictor(Predictor):
    """The same for a network that is not exported: torch runs in place of the engines, and nothing else differs."""

    def __init__(self, model: Model, **settings: Any) -> None:
        self._model = model
        with torch.no_grad():
            text = class_embeddings(model.network, model.classes).numpy()
        manifest = Manifest("network", tuple(model.classes), model.height, model.width, STRIDE, model.steps)
        super().__init__(Bundle(Path(), manifest, text), **settings)

    def _compile(self, precision: str, threads: int) -> None:
        self._encoder = TorchEngine(self._model.network, ("features", "logits"))
        self._refiner = Refiner(TorchEngine(self._model.refiner, ("refined", "moved")), self.steps)
        self.precision, self.engine_name = TorchEngine.precision, TorchEngine.backend
