"""Training samples of the promptable head: the features of a corrupted image, and an object in it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, load_engines
from cliprl.models.data.augmentation.augment import Geometry, Photometry
from cliprl.models.data.augmentation.endoscope_corruptions import CORRUPTIONS, apply_corruption
from cliprl.models.data.batch_loader import Mixture
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT, Image, instrument_classes
from cliprl.pipeline.correction.class_odds import class_odds
from cliprl.pipeline.segment.refinement import RefinementLoop

# Share of samples with a corruption, its strongest severity, and the shares of objects that are all instruments as one.
CORRUPTED, SEVERITY, ALL_INSTRUMENTS = 0.6, 5.0, 0.6
# Shares of present masks that are empty, that are the truth at another place, and that are the truth of a moment earlier.
NO_MASK, SHIFTED, EARLIER = 0.06, 0.12, 0.16
# Shifts of the latter two, as a share of the width (standard deviation), and the fewest pixels of an object.
_FAR, _NEAR, _LEAST_AREA = 0.05, 0.012, 40
# Share of objects whose outline is another annotator's: moved by a share of the width, and larger or smaller by some pixels.
OTHER_OUTLINE, OUTLINE_SHIFT, OUTLINE_PIXELS = 0.35, 0.02, 2
# Stride of the truth against the image.
TRUTH_STRIDE = 2


@dataclass(frozen=True, slots=True)
class PromptSample:
    """One object of one image.

    features float32 (D, h, w) and image uint8 (H, W, 3) as the encoder has them, truth uint8 (H / 2, W / 2) of 1, 0 and IGNORE,
    and the logits float32 (h, w) of the present mask. earlier: that mask is of a moment earlier, to be followed without a prompt.
    """

    features: NDArray[np.float32]
    image: Image
    truth: Image
    logits: NDArray[np.float32]
    earlier: bool


class SampleMaker:
    """Draws samples from `mixture`, whose labels index the bundle's classes. Not for use by two threads at once."""

    def __init__(self, bundle: Bundle, mixture: Mixture, *, precision: str, threads: int) -> None:
        self.bundle, self.mixture = bundle, mixture
        self._engines = load_engines(bundle, precision=precision, threads=threads)
        self._refine = RefinementLoop(self._engines.refiner, bundle.manifest.steps, bundle.embeddings)
        self._instrument = instrument_classes(bundle.manifest.classes)

    def batch(self, index: int, size: int) -> list[PromptSample]:
        """Draw the samples of a batch; the same ones for the same index."""
        return [self.draw(np.random.default_rng((index, n))) for n in range(size)]

    def draw(self, rng: np.random.Generator) -> PromptSample:
        """Draw one sample; views without any object are drawn again."""
        size = self.bundle.manifest.height, self.bundle.manifest.width
        while True:
            dataset, index = self.mixture.draw(rng)
            sample = dataset[index]
            height, width = sample.labels.shape
            view = Geometry.draw(rng, (height, width), size)
            image, labels = Photometry.draw(rng).apply(*view.apply(sample, size, TRUTH_STRIDE), rng)
            if (chosen := self._object(labels, rng)) is not None:
                break
        if rng.random() < CORRUPTED:
            image = apply_corruption(image, str(rng.choice(list(CORRUPTIONS))), rng.uniform(0, SEVERITY), rng)
        outputs = self._engines.encoder.run({"image": image[None], "text": self.bundle.embeddings})
        features, logits = np.array(outputs["features"][0], np.float32), np.array(outputs["logits"], np.float32)
        if rng.random() < 0.5:
            logits = self._refine(outputs["features"], logits, logits).logits
        truth, classes = chosen
        if rng.random() < OTHER_OUTLINE:
            truth = _other_outline(truth, rng)
        odds, kind = class_odds(logits[0], classes), rng.random()
        if kind < NO_MASK:
            odds = np.zeros_like(odds)
        elif kind < NO_MASK + SHIFTED + EARLIER:
            odds = _moved(truth, odds.shape, _FAR if kind < NO_MASK + SHIFTED else _NEAR, rng)
        earlier = NO_MASK + SHIFTED <= kind < NO_MASK + SHIFTED + EARLIER
        return PromptSample(features, image, truth, odds, earlier)

    def _object(self, labels: Image, rng: np.random.Generator) -> tuple[Image, NDArray[np.int64]] | None:
        """Return the truth of one object and the classes that it has; None if the labels show none."""
        count, instrument = len(self._instrument), np.flatnonzero(self._instrument)
        whole = np.full(256, IGNORE, np.uint8)
        whole[:count] = self._instrument
        whole[[INSTRUMENT, NOT_INSTRUMENT]] = 1, 0
        seen = [int(c) for c in np.unique(labels) if c < count and np.count_nonzero(labels == c) >= _LEAST_AREA]
        truth = whole[labels]
        all_of_them = rng.random() < ALL_INSTRUMENTS or not seen
        if all_of_them and np.count_nonzero(truth == 1) >= _LEAST_AREA:
            return truth, instrument
        if not seen:
            return None
        one = int(rng.choice(seen))
        table = np.where(np.arange(256) == one, 1, np.where(np.arange(256) < count, 0, IGNORE)).astype(np.uint8)
        table[INSTRUMENT], table[NOT_INSTRUMENT] = (IGNORE, 0) if self._instrument[one] else (0, IGNORE)
        return table[labels], np.array([one])


def _moved(truth: Image, grid: tuple[int, ...], shift: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the logits of the truth, shifted by a share of the width, and turned and zoomed in proportion."""
    center = truth.shape[1] / 2, truth.shape[0] / 2
    matrix = cv2.getRotationMatrix2D(center, np.rad2deg(rng.normal(0, 2 * shift)), np.exp(rng.normal(0, 2 * shift)))
    matrix[:, 2] += rng.normal(0, shift, 2) * truth.shape[1]
    moved = cv2.warpAffine((truth == 1).astype(np.float32), matrix, truth.shape[::-1])
    return np.asarray(cv2.resize(moved * 8 - 4, grid[::-1], interpolation=cv2.INTER_AREA), np.float32)


def _other_outline(truth: Image, rng: np.random.Generator) -> Image:
    """Return the truth as another annotator would draw it: a little moved, and larger or smaller."""
    shift = rng.normal(0, OUTLINE_SHIFT / 2, 2) * truth.shape[1]
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    moved = cv2.warpAffine(truth, matrix, truth.shape[::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    pixels = int(rng.integers(-OUTLINE_PIXELS, OUTLINE_PIXELS + 1))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(pixels) + 1,) * 2)
    object_ = (cv2.dilate if pixels > 0 else cv2.erode)((moved == 1).astype(np.uint8), kernel)
    return np.where(moved == IGNORE, IGNORE, object_).astype(np.uint8)


def stacked(samples: list[PromptSample]) -> tuple[NDArray[np.float32], Image, Image, NDArray[np.float32]]:
    """Return features, images, truths and logits (with a channel axis) of a batch."""
    return (
        np.stack([one.features for one in samples]),
        np.stack([one.image for one in samples]),
        np.stack([one.truth for one in samples]),
        np.stack([one.logits for one in samples])[:, None],
    )
