"""The logits of a bundle's networks for any texts, without torch."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, ClassSpec, TextEngine, compile_engine

# The encoder is compiled for an open number of classes.
OPEN_COUNT = -1


class BundleLogits:
    """The encoder and the text network of a bundle, compiled in 32 bits. Raises UsageError for a bundle without texts."""

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        self.bundle = bundle
        self.size = bundle.manifest.height, bundle.manifest.width
        self._texts = TextEngine(bundle)
        shapes = {"image": (1, *self.size, 3), "text": (OPEN_COUNT, bundle.embeddings.shape[1])}
        self._encoder = compile_engine(bundle.encoder, precision="f32", shapes=shapes, threads=threads)

    def embed(self, phrase: str) -> NDArray[np.float32]:
        """Return the unit embedding (E,) of a phrase in all templates."""
        return self._texts.embed_class(ClassSpec(phrase, (0, 0, 0), "prompted", (phrase,)))

    def logits(self, image: NDArray[np.uint8], texts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return logits float32 (K, h, w) of an image uint8 (H, W, 3) for at least two text embeddings (K, E)."""
        resized = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8)
        return np.array(self._encoder.run({"image": resized[None], "text": texts})["logits"][0], np.float32)
