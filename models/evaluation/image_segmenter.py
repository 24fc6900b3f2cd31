"""What is scored: a bundle on the pipeline's own segmenter, fed with pictures instead of a video's frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.engines import Bundle
from cliprl.models.data.sample import Image
from cliprl.pipeline.core.color import Color
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sources.decoding.nv12_writer import RgbWriter

# Full range loses least of an RGB image on its way through Y'CbCr.
FRAME_COLOR = Color("bt709", full_range=True)
FRAME_TIME = Fraction(1, 25)


class ImageSegmenter(Segmenter):
    """The pipeline's segmenter, with its arguments, for RGB pictures."""

    def __init__(self, bundle: Bundle | str | Path, **settings: Any) -> None:
        self._writer, self._index = RgbWriter(), 0
        super().__init__(bundle, **settings)

    def segment(self, image: Image) -> Segmentation:
        """Segment the next image of a clip, uint8 (H, W, 3) RGB."""
        height, width = image.shape[:2]
        frame = Frame(*allocate_planes(height, width), self._index, FRAME_TIME, self._index, FRAME_COLOR)
        self._writer.write(np.ascontiguousarray(image), frame.luma, frame.chroma, FRAME_COLOR)
        self._index += 1
        return self(frame)

    def reset(self) -> None:
        """Forget all of the last clip, and count frames anew."""
        super().reset()
        self._index = 0
