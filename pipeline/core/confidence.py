"""How far a mask can be trusted: calibrated probabilities, doubt, and the familiarity of a frame, from its probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, BundleError, ConfidenceSpec, LogisticSpec, grid_scale

# Of the cells in the field of view: share called instrument; mean entropy; mean entropy of the cells called instrument; largest
# probability of instrument; share with a probability of 0.1 to 0.9; length of the outline; outline for its area; mean of the
# largest probability; deviations of the entropy and of the largest probability.
FRAME_STATISTICS = (
    *("area", "entropy", "instrument entropy", "largest", "undecided", "outline"),
    *("outline for area", "confidence", "entropy deviation", "confidence deviation"),
)
# Of the network input in the field of view: mean and deviation of R, G, B; of the shares of R and of G in their sum the mean, the
# deviation and quantiles; quantiles of the brightness. All are 0..1.
RED_QUANTILES, GREEN_QUANTILES, LIGHT_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95), (0.05, 0.5, 0.95), (0.1, 0.5, 0.9)
COLOR_STATISTICS = (
    *(f"{channel} {name}" for name in ("mean", "deviation") for channel in ("red", "green", "blue")),
    *(f"share of {channel} {name}" for name in ("mean", "deviation") for channel in ("red", "green")),
    *(f"share of red {part}" for part in RED_QUANTILES),
    *(f"share of green {part}" for part in GREEN_QUANTILES),
    *(f"brightness {part}" for part in LIGHT_QUANTILES),
)
SMALLEST_AREA = 0.01
# With a smaller share called instrument a frame is not marked: without an instrument the doubt means nothing.
MARKED_AREA = 0.001
# Logits beyond this make no difference.
LARGEST = 30.0
# Of a cell that is called instrument: its logit of instrument; the mean logit of the square around it, of `AROUND` cells; the
# logarithm of its distance from the edge of the mask, at most `DEEPEST` cells; its probability; the mean probability around it.
CELL_INPUTS = ("logit", "logit around", "depth", "probability", "probability around")
AROUND, DEEPEST = 9, 6.0
TINY, TINY_LIGHT = 1e-6, 1e-3

Probabilities = NDArray[np.float32]
Inside = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far the mask of a frame can be trusted.

    doubt: the estimated probability, 0..1, that its instrument IoU is below 0.5, if the frame shows an instrument.
    distance: from the frames that the bundle is for, in deviations. unsure, unfamiliar: they are above the bundle's thresholds.
    """

    doubt: float
    distance: float
    unsure: bool
    unfamiliar: bool

    @property
    def mark(self) -> str:
        """Return the mark of the status line: "unfamiliar view", "unsure", or nothing."""
        return "unfamiliar view" if self.unfamiliar else "unsure" if self.unsure else ""


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceModel:
    """The confidence of a bundle, applied to probabilities float32 (K, h, w). `instrument`: bool (K,), the classes of masks.

    scale: how many times as many cells lie side by side as at the input size that it was fitted at.
    """

    spec: ConfidenceSpec
    instrument: NDArray[np.bool_]
    scale: float = 1.0

    @classmethod
    def of(cls, bundle: Bundle) -> Self | None:
        """Return the model of a bundle; None for one without. Raises BundleError for one that is fitted to other statistics."""
        instrument = np.array([spec.kind == "instrument" for spec in bundle.manifest.mask_classes])
        if bundle.confidence is None or not instrument.any():
            return None
        found = bundle.confidence
        known = found.colors in ((), COLOR_STATISTICS)
        if not known or (found.statistics, found.cells) != (FRAME_STATISTICS, CELL_INPUTS):
            raise BundleError(
                f"the confidence of bundle '{bundle.manifest.name}' is of another version of cliprl: "
                "fit it again with python -m cliprl.models.studies.confidence.calibration"
            )
        return cls(bundle.confidence, instrument, grid_scale(bundle))

    def statistics(
        self, probabilities: Probabilities, labels: NDArray[np.uint8], inside: Inside
    ) -> NDArray[np.float64]:
        """Return the `FRAME_STATISTICS` of a frame. `inside`: bool (h, w), the cells in the field of view."""
        return frame_statistics(probabilities, labels, inside, self.instrument, self.scale)

    def assess(
        self,
        statistics: NDArray[np.float64],
        probabilities: Probabilities,
        inside: Inside,
        colors: NDArray[np.uint8] | None = None,
    ) -> Reliability:
        """Return the reliability of a frame with these `statistics`.

        colors: RGB uint8 (h, w, 3), the network input at the cells; None counts as familiar.
        """
        doubt = float(logistic(self.spec.doubt, statistics))
        seen = None if colors is None or not self.spec.colors else color_statistics(colors, inside)
        far = distance(self.spec, np.concatenate([statistics, mean_probabilities(probabilities, inside)]), seen)
        return Reliability(doubt, far, bool(is_unsure(self.spec, doubt, statistics)), far >= self.spec.unfamiliar)

    def calibrate(
        self, statistics: NDArray[np.float64], probabilities: Probabilities, labels: NDArray[np.uint8]
    ) -> Probabilities:
        """Return calibrated probabilities (K, h, w) of a frame with these `statistics`.

        Those of the cells called instrument are changed, the others kept.
        """
        # A segmentation of the likeliest parts lacks the class of unsure ones.
        called, instrument = self.instrument[labels], self.instrument[: len(probabilities)]
        if not called.any():
            return probabilities
        cells = cell_inputs(probabilities, called, instrument, self.scale)
        wanted = logistic(self.spec.calibration, calibration_inputs(cells, statistics))
        found = probabilities[instrument].sum(0)[called]
        result = probabilities.copy()
        scale = np.where(
            instrument[:, None], wanted / np.maximum(found, TINY), (1 - wanted) / np.maximum(1 - found, TINY)
        )
        result[:, called] *= scale.astype(np.float32)
        return result


def frame_statistics(
    p: Probabilities, labels: NDArray[np.uint8], inside: Inside, instrument: Inside, scale: float = 1.0
) -> NDArray[np.float64]:
    """Return the `FRAME_STATISTICS` of a frame, float64 (10,). `scale`: see `grid_scale`."""
    cells = max(1, int(inside.sum()))
    called, chance, winning = instrument[labels] & inside, p[instrument[: len(p)]].sum(0), p.max(axis=0)
    entropy = -(p * np.log(p + np.float32(1e-9))).sum(0)
    area = called.sum() / cells
    outline = ((called[1:] != called[:-1]).sum() + (called[:, 1:] != called[:, :-1]).sum()) / cells * scale
    of_view = inside if inside.any() else np.ones_like(inside)
    entropy_of_view, winning_of_view = entropy[of_view], winning[of_view]
    return np.array(
        [
            area,
            entropy_of_view.mean(),
            entropy[called].mean() if called.any() else 0.0,
            chance[inside].max(initial=0.0),
            ((chance > 0.1) & (chance < 0.9) & inside).sum() / cells,
            outline,
            outline / max(area, SMALLEST_AREA),
            winning_of_view.mean(),
            entropy_of_view.std(),
            winning_of_view.std(),
        ],
        np.float64,
    )


def mean_probabilities(p: Probabilities, inside: Inside) -> Probabilities:
    """Return the mean probability of each class over the cells that are `inside`, float32 (K,); 0 without any."""
    return np.asarray((p * inside).sum(axis=(1, 2)) / max(1, int(inside.sum())), np.float32)


def color_statistics(image: NDArray[np.uint8], inside: Inside) -> NDArray[np.float64]:
    """Return the `COLOR_STATISTICS`, float64 (21,), of a network input RGB uint8 (h, w, 3) at the cells that are `inside`."""
    pixels = image.reshape(-1, 3).take(np.flatnonzero(inside), axis=0) if inside.any() else np.zeros((1, 3))
    rgb = np.ascontiguousarray(pixels.T, np.float32) / 255  # one row a channel: reduced in half the time
    total = rgb.sum(axis=0)
    red, green = rgb[:2] / (total + np.float32(TINY_LIGHT))
    return np.concatenate(
        [
            rgb.mean(axis=1),
            rgb.std(axis=1),
            (red.mean(), green.mean(), red.std(), green.std()),
            quantiles(red, RED_QUANTILES),
            quantiles(green, GREEN_QUANTILES),
            quantiles(total / 3, LIGHT_QUANTILES),
        ]
    ).astype(np.float64)


def quantiles(values: NDArray[np.float32], shares: Sequence[float]) -> NDArray[np.float64]:
    """Return the quantiles of `values` (n,), interpolated linearly: as `np.quantile`, bit for bit, in a third of the time."""
    places = np.array(shares) * (len(values) - 1)
    lower = places.astype(np.intp)
    upper = np.minimum(lower + 1, len(values) - 1)
    ordered = np.partition(values, (*lower, *upper))
    low, high = ordered[lower], ordered[upper]
    above, step = places - lower, high - low
    return np.where(above < 0.5, low + step * above, high - step * (1 - above))


def cell_inputs(p: Probabilities, called: Inside, instrument: Inside, scale: float = 1.0) -> Probabilities:
    """Return the `CELL_INPUTS` of the cells that are called instrument, float32 (n, 5). `scale`: see `grid_scale`."""
    chance = np.clip(p[instrument].sum(0), TINY, 1 - TINY)
    logits = np.log(chance / (1 - chance))
    side = 2 * round(AROUND * scale / 2 - 0.5) + 1
    mean_logits, means = (cv2.blur(plane, (side, side), borderType=cv2.BORDER_REPLICATE) for plane in (logits, chance))
    cells = cv2.distanceTransform(called.view(np.uint8), cv2.DIST_L2, 3) / np.float32(scale)
    depth = np.log(np.clip(cells, 1, DEEPEST))
    return np.stack([plane[called] for plane in (logits, mean_logits, depth, chance, means)], axis=-1).astype(
        np.float32
    )


def calibration_inputs(cells: Probabilities, statistics: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inputs of the calibration (n, 5 + 10) for cells (n, 5) of a frame with these statistics (10,)."""
    return np.concatenate([cells, np.broadcast_to(statistics, (len(cells), len(statistics)))], axis=1)


def logistic(spec: LogisticSpec, inputs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the probabilities (...) of inputs (..., N)."""
    logit = inputs @ np.array(spec.weights) + spec.intercept
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -LARGEST, LARGEST))), np.float64)


def is_unsure(
    spec: ConfidenceSpec, doubt: NDArray[np.float64] | float, statistics: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return whether frames (...) of these statistics (..., 10) are marked: they are doubted, and show an instrument."""
    return np.asarray((doubt >= spec.unsure) & (statistics[..., 0] >= MARKED_AREA))


def distance(spec: ConfidenceSpec, inputs: NDArray[np.float64], colors: NDArray[np.float64] | None) -> float:
    """Return the distance of a frame from those that the bundle is for.

    inputs: its statistics and mean probabilities. colors: its `COLOR_STATISTICS`; None for those of each set that is compared.
    """
    (means, whitening), count = spec.familiarity.arrays, len(inputs)
    known = means[:, count:] if colors is None else np.broadcast_to(colors, (len(means), len(colors)))
    values = np.concatenate([np.broadcast_to(inputs, (len(means), count)), known], axis=1)
    return float(np.linalg.norm((values - means) @ whitening.T, axis=1).min())
