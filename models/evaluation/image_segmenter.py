"""The pipeline's segmenter for images instead of video frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cliprl.engines import Bundle, naming_parts
from cliprl.models.data.sample import Image
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sources.images.array_frame import frame_of_image


class ImageSegmenter(Segmenter):
    """The pipeline's segmenter, with its arguments, for RGB images. Its masks name the likeliest part, also an unsure one."""

    def __init__(self, bundle: Bundle | str | Path, **settings: Any) -> None:
        self._index = 0
        super().__init__(naming_parts(bundle), **settings)

    def segment(self, image: Image) -> Segmentation:
        """Segment the next image of a clip, uint8 (H, W, 3) RGB. Raises UsageError for another type or shape."""
        frame = frame_of_image(image, self._index)
        self._index += 1
        return self(frame)

    def reset(self) -> None:
        """Discard the state of the last clip and restart the frame count."""
        super().reset()
        self._index = 0
