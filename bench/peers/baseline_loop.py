"""A typical hand-written loop: OpenCV and NumPy in RGB, a thread each for decoding, network and encoding.

It runs the same bundle with the same input size and the same x264 preset as `cliprl-stream`, so that only the pipeline (and,
with another engine than OpenVINO, the engine) differs.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle

Array = NDArray[Any]
Image = NDArray[np.uint8]
OPACITY = 0.4
PRESET = "ultrafast"
# image uint8 (1, H, W, 3) -> features (1, D, h, w), logits (1, K, h, w); valid until the next call.
Encode = Callable[[Array], tuple[Array, Array]]
# features, logits, base, prior -> refined logits; valid until the next call.
Refine = Callable[[Array, Array, Array, Array], Array]


class LabelMaker(Protocol):
    """What the loop calls for each RGB image (H, W, 3) of a clip: labels (h, w)."""

    def __call__(self, image: Image) -> Image:
        """Segment the next frame of the clip."""

    def reset(self) -> None:
        """Forget the last frame."""


class PlainSegmenter:
    """Segments an RGB image (H, W, 3) into labels (h, w), with every refinement step."""

    def __init__(self, size: tuple[int, int], steps: int, encode: Encode, refine: Refine) -> None:
        self.size, self.steps = size, steps
        self._encode, self._refine = encode, refine
        self._prior: Array | None = None

    def __call__(self, image: Image) -> Image:
        """Segment the next frame of the clip."""
        small = cv2.resize(image, self.size, interpolation=cv2.INTER_AREA)
        features, base = self._encode(np.asarray(small)[None])
        prior = base if self._prior is None else self._prior
        logits = base
        for _ in range(self.steps):
            logits = self._refine(features, logits, base, prior).copy()
        self._prior = logits
        return np.asarray(logits[0].argmax(0), np.uint8)

    def reset(self) -> None:
        """Forget the last frame."""
        self._prior = None


def run_loop(clip: Path, out: Path, bundle: Bundle, segment: LabelMaker, frames: int | None) -> int:
    """Segment and overlay `clip`, or its first `frames` frames, into `out`; returns the number of frames."""
    with av.open(clip) as container:
        rate = container.streams.video[0].average_rate
    decoded: queue.Queue[Image | None] = queue.Queue(4)
    finished: queue.Queue[Image | None] = queue.Queue(4)
    threads = [
        threading.Thread(target=_decode, args=(clip, decoded, frames), daemon=True),
        threading.Thread(target=_encode, args=(out, finished, rate), daemon=True),
    ]
    for thread in threads:
        thread.start()
    paint = Painter(bundle)
    count = 0
    segment.reset()
    for image in _items(decoded):
        finished.put(paint(image, segment(image)))
        count += 1
    finished.put(None)
    for thread in threads:
        thread.join()
    return count


class Painter:
    """Blends the classes' colors over an image, except on the background."""

    def __init__(self, bundle: Bundle) -> None:
        self._palette = np.array([c.color for c in bundle.manifest.classes], np.uint8)
        self._painted = np.array([c.kind != "background" for c in bundle.manifest.classes])

    def __call__(self, image: Image, labels: Image) -> Image:
        """Paint labels (h, w) over an image (H, W, 3)."""
        height, width = image.shape[:2]
        full = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
        blended = cv2.addWeighted(image, 1 - OPACITY, self._palette[full], OPACITY, 0)
        return np.where(self._painted[full][..., None], blended, image)


def _decode(path: Path, out: queue.Queue[Image | None], frames: int | None) -> None:
    with av.open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in islice(container.decode(video=0), frames):
            out.put(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
    out.put(None)


def _encode(path: Path, images: queue.Queue[Image | None], rate: Any) -> None:
    with av.open(path, "w") as container:
        stream: Any = None
        for image in _items(images):
            if stream is None:
                stream = container.add_stream("libx264", rate=rate, options={"preset": PRESET})
                stream.height, stream.width, stream.pix_fmt = *image.shape[:2], "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode(None))


def _items(images: queue.Queue[Image | None]) -> Iterator[Image]:
    while (image := images.get()) is not None:
        yield image
