"""What the tracker sees of labeled frames: the true masks, or those of a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle
from cliprl.models.evaluation.evaluation import labels_on_grid
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.pipeline.core.frame import FrameContext
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.segment.segmenter import CpuPreprocessor
from cliprl.pipeline.sources.images.array_frame import frame_of_image
from cliprl.pipeline.tracking.tracker import TrackerInput
from cliprl.pipeline.view.field_of_view import FieldOfViewDetector

Image = NDArray[np.uint8]
# Makes an observation from an image (H, W, 3) RGB and its true labels (H, W).
Observer = Callable[[Image, Image], TrackerInput]
# The network input and the grid of the shipped bundles: height and width.
_NETWORK, _GRID = (256, 320), (64, 80)


class TrueMasks:
    """Observes the true labels through the pipeline's field of view, on the grid of a network. One for each clip."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._detector, self._preprocessor = FieldOfViewDetector(*_NETWORK), CpuPreprocessor()

    def __call__(self, image: Image, labels: Image) -> TrackerInput:
        """Return the observation of the next frame."""
        frame = frame_of_image(image)
        view = self._detector.view_of(frame)
        out = np.empty((*_NETWORK, 3), np.uint8)
        self._preprocessor.prepare(frame, view, out)
        cells = labels_on_grid(labels, view, _GRID)
        probabilities = (np.arange(self._classes)[:, None, None] == cells).astype(np.float32)
        return TrackerInput(Segmentation(cells, probabilities, view, 1.0, 0), out)


class NetworkMasks:
    """Observes the masks of a bundle, as the pipeline does; the labels are not used. One for each clip."""

    def __init__(self, segmenter: ImageSegmenter) -> None:
        self._segmenter = segmenter
        segmenter.reset()

    @classmethod
    def of(cls, bundle: Bundle | str | Path, **settings: object) -> NetworkMasks:
        """Open a bundle."""
        return cls(ImageSegmenter(bundle, **settings))

    def __call__(self, image: Image, labels: Image) -> TrackerInput:
        """Segment the next frame."""
        context = FrameContext(frame_of_image(image))
        for stage in self._segmenter.stages:
            stage.run(context)
        assert context.segmentation is not None
        return TrackerInput(context.segmentation, context.image[0], context.features[0], context.is_cut)
