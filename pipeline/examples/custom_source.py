"""Write a source: frames from a NumPy array, such as those of a simulator.

python custom_source.py out.mp4
"""

import sys
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline import ColorSpace, Frame, OutputSpec, Overlay, Segmenter, Stream, StreamInfo, open_sink
from cliprl.pipeline.core.color import rgb_to_yuv
from cliprl.pipeline.core.interfaces import PlaneAllocator
from cliprl.pipeline.sources.base import FrameSource


class ArraySource(FrameSource):
    """Give the frames of an RGB array, uint8 (N, H, W, 3) with even H and W, at `rate` frames per second."""

    def __init__(self, images: NDArray[np.uint8], rate: int) -> None:
        super().__init__(StreamInfo("array", images.shape[1], images.shape[2], Fraction(1, rate), Fraction(rate)))
        self.images = images
        self.index = 0

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        if self.index == len(self.images):
            return None
        yuv = rgb_to_yuv(self.images[self.index], ColorSpace())
        luma, chroma = allocate(*yuv.shape[:2])
        luma[:], chroma[:] = yuv[..., 0], yuv[::2, ::2, 1:]
        self.index += 1
        return Frame(luma, chroma, self.index - 1, self.info.time_base, self.index - 1, ColorSpace())


def main(output: str) -> None:
    images = np.random.default_rng(0).integers(0, 255, (10, 120, 160, 3), np.uint8)
    segmenter, source = Segmenter("small"), ArraySource(images, rate=25)
    sink = open_sink(output, OutputSpec(source.info, segmenter.classes))
    print(Stream(source, segmenter, Overlay(segmenter.classes), [sink]).run().frames, "frames written")


if __name__ == "__main__":
    main(*sys.argv[1:])
