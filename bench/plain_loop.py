"""The loop that people write today: OpenCV and NumPy in RGB, a thread each for decoding, network and encoding.

It runs the same bundle on the same engine as `cliprl-stream`, with the same number of refinement steps and the same x264
preset, so that what is compared is the pipeline and nothing else.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, compile_engine

Picture = NDArray[np.uint8]
OPACITY = 0.45
PRESET = "ultrafast"


class PlainSegmenter:
    """RGB picture (H, W, 3) -> labels (h, w): the network run as its ONNX files say, every refinement step taken."""

    def __init__(self, bundle: Bundle, steps: int) -> None:
        manifest = bundle.manifest
        self.size = (manifest.width, manifest.height)
        self.steps = steps
        self.text = bundle.embeddings
        shapes: dict[str, tuple[int, ...]] = {"image": (1, manifest.height, manifest.width, 3), "text": self.text.shape}
        self.encoder = compile_engine(bundle.encoder, shapes=shapes)
        blank = self.encoder.run({"image": np.zeros(shapes["image"], np.uint8), "text": self.text})
        grid = blank["logits"].shape
        shapes = {"features": blank["features"].shape, "logits": grid, "base": grid, "prior": grid}
        self.refiner = compile_engine(bundle.refiner, shapes=shapes)
        self.prior: NDArray[Any] | None = None

    def __call__(self, picture: Picture) -> NDArray[np.uint8]:
        """Segment the next picture of the clip."""
        small = cv2.resize(picture, self.size, interpolation=cv2.INTER_AREA)
        outputs = self.encoder.run({"image": np.asarray(small)[None], "text": self.text})
        features, base = outputs["features"], outputs["logits"]
        prior = base if self.prior is None else self.prior
        logits = base
        for _ in range(self.steps):
            step = self.refiner.run({"features": features, "logits": logits, "base": base, "prior": prior})
            logits = step["refined"].copy()
        self.prior = logits
        return np.asarray(logits[0].argmax(0), np.uint8)


def _decode(path: Path, out: queue.Queue[Picture | None]) -> None:
    with av.open(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            out.put(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
    out.put(None)


def _encode(path: Path, frames: queue.Queue[Picture | None], rate: Any) -> None:
    with av.open(path, "w") as container:
        stream: Any = None
        while (picture := frames.get()) is not None:
            if stream is None:
                stream = container.add_stream("libx264", rate=rate, options={"preset": PRESET})
                stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode(None))


def _taken(frames: queue.Queue[Picture | None]) -> Iterator[Picture]:
    while (picture := frames.get()) is not None:
        yield picture


def run(clip: Path, out: Path, bundle: Bundle, segment: PlainSegmenter) -> int:
    """Segment and overlay `clip` into `out`; returns the number of frames."""
    with av.open(clip) as container:
        rate = container.streams.video[0].average_rate
    palette = np.array([c.color for c in bundle.manifest.classes], np.uint8)
    painted = np.array([c.kind != "background" for c in bundle.manifest.classes])
    decoded: queue.Queue[Picture | None] = queue.Queue(4)
    finished: queue.Queue[Picture | None] = queue.Queue(4)
    threads = [
        threading.Thread(target=_decode, args=(clip, decoded)),
        threading.Thread(target=_encode, args=(out, finished, rate)),
    ]
    for thread in threads:
        thread.start()
    count = 0
    for picture in _taken(decoded):
        height, width = picture.shape[:2]
        labels = cv2.resize(segment(picture), (width, height), interpolation=cv2.INTER_NEAREST)
        blended = cv2.addWeighted(picture, 1 - OPACITY, palette[labels], OPACITY, 0)
        finished.put(np.where(painted[labels][..., None], blended, picture))
        count += 1
    finished.put(None)
    for thread in threads:
        thread.join()
    return count
