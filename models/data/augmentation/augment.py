"""Augmentation: a random view of an image, and a random camera and light."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.models.data.augmentation.endoscope_corruptions import apply_corruption
from cliprl.models.data.sample import NOT_INSTRUMENT, Image, Sample

LABEL_STRIDE = 4
# The smallest and the default largest share of the image width that a view spans.
MIN_ZOOM, MAX_ZOOM = 0.5, 1.25
# The strongest severity of the mild corruptions of every camera.
MILD_SEVERITY = 1.5
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Geometry:
    """An affine view: `matrix` (2, 3) maps network pixels to image pixels; outside is a mirror image or black."""

    matrix: Matrix
    mirrored: bool

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        source: tuple[int, int],
        target: tuple[int, int],
        widest: float = MAX_ZOOM,
        variety: float = 1.0,
    ) -> Geometry:
        """Draw a view of an image of size `source` (height, width) for a network of size `target`.

        It spans 0.5 to `widest` of the image width, with aspect 0.75 to 1.33, any rotation (mostly small), flips and shifts.
        `variety` below 1 reduces aspect and rotation.
        """
        fit = np.array([source[1] / target[1], source[0] / target[0]])
        zoom = np.exp(rng.uniform(np.log(MIN_ZOOM), np.log(max(widest, MIN_ZOOM))))
        aspect = np.exp(rng.uniform(-0.28, 0.28) * variety)
        scale = fit * zoom * np.array([np.sqrt(aspect), 1 / np.sqrt(aspect)]) * rng.choice([-1, 1], 2)
        angle = rng.uniform(-np.pi, np.pi) if rng.random() < 0.25 * variety**2 else rng.normal(0, 0.3 * variety)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = np.diag(scale) @ turn
        free = np.clip(1 - zoom, 0.1, 1) / 2
        center = np.array([source[1], source[0]]) * (0.5 + rng.uniform(-free, free, 2))
        return cls(_about(linear, center, target), bool(rng.random() < 0.8))

    @classmethod
    def whole(cls, rng: np.random.Generator, source: tuple[int, ...], target: tuple[int, int]) -> Geometry:
        """Draw a view of nearly the whole image, so that its caption stays true: mirrored, rotated a little."""
        fit = np.array([source[1] / target[1], source[0] / target[0]]) * rng.choice([-1, 1], 2)
        angle = rng.normal(0, 0.1)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return cls(_about(np.diag(fit) @ turn, np.array([source[1], source[0]]) / 2, target), True)

    @classmethod
    def stretched(cls, source: tuple[int, ...], target: tuple[int, int]) -> Geometry:
        """Return the view of the whole image of size `source` (height, width), as the network input shows it."""
        fit = np.array([source[1] / target[1], source[0] / target[0]])
        return cls(_about(np.diag(fit), np.array([source[1], source[0]]) / 2, target), True)

    def moved(self, rng: np.random.Generator, target: tuple[int, int]) -> Geometry:
        """Draw the view of a moment earlier: shifted by up to a twentieth, rotated and zoomed a little."""
        angle, zoom = rng.normal(0, 0.015), np.exp(rng.normal(0, 0.012))
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        center = self.matrix @ np.array([target[1] / 2, target[0] / 2, 1])
        shift = self.matrix[:, :2] @ (rng.normal(0, 0.015, 2) * target[1])
        return Geometry(_about(self.matrix[:, :2] @ turn, center + shift, target), self.mirrored)

    def apply(self, sample: Sample, target: tuple[int, int], stride: int = LABEL_STRIDE) -> tuple[Image, Image]:
        """Return the image uint8 (*target, 3) and labels uint8 (target / stride), sampled at the centers of the cells."""
        height, width = target
        border = cv2.BORDER_REFLECT_101 if self.mirrored else cv2.BORDER_CONSTANT
        shrinks = np.sqrt(abs(np.linalg.det(self.matrix[:, :2]))) > 1.4
        image = cv2.GaussianBlur(sample.image, (0, 0), 0.8) if shrinks else sample.image
        image = cv2.warpAffine(
            image, self.matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=border
        ).astype(np.uint8)
        cells = self.matrix.copy()
        cells[:, :2] *= stride
        cells[:, 2] += self.matrix[:, :2] @ np.full(2, (stride - 1) / 2)
        labels = cv2.warpAffine(
            sample.labels,
            cells,
            (width // stride, height // stride),
            flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
            borderMode=border,
            borderValue=NOT_INSTRUMENT,
        ).astype(np.uint8)
        return image, labels


def _about(linear: NDArray[np.float64], center: NDArray[np.float64], target: tuple[int, int]) -> Matrix:
    """Return the affine map with the `linear` part that maps the middle of the target to `center`."""
    middle = np.array([target[1], target[0]]) / 2
    return np.hstack([linear, (center - linear @ middle)[:, None]])


@dataclass(frozen=True, slots=True)
class Photometry:
    """A camera and its light: channel `mixing` (3, 3), tone `curve` (256, 3), a `light` field, a circular field of view."""

    mixing: NDArray[np.float32]
    curve: Image
    light: NDArray[np.float32]
    circle: tuple[float, float, float] | None
    corruption: str
    severity: float
    sharpening: float
    quality: int

    @classmethod
    def draw(cls, rng: np.random.Generator, severity: float = MILD_SEVERITY, variety: float = 1.0) -> Photometry:
        """Draw hue, saturation, gains, gamma, contrast, uneven light, corruption up to `severity`, sharpening and JPEG.

        `variety` below 1 narrows colors and tones in proportion, and makes the rest rarer by its square.
        """
        circle, rare = None, variety**2
        if rng.random() < 0.3 * rare:
            circle = (rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6), rng.uniform(0.35, 0.65))
        return cls(
            _mixing(rng, variety),
            _curve(rng, variety),
            rng.uniform(0.45, 1.25, (3, 3)).astype(np.float32)
            if rng.random() < 0.6 * rare
            else np.ones((3, 3), np.float32),
            circle,
            str(rng.choice(["noise", "blur", "darkness", "smoke"])),
            float(rng.uniform(0, severity)) if rng.random() < 0.5 else 0.0,
            float(rng.uniform(0.2, 1.2)) if rng.random() < 0.3 * rare else 0.0,
            int(rng.integers(30, 95)) if rng.random() < 0.4 * rare else 0,
        )

    def apply(self, image: Image, labels: Image, rng: np.random.Generator) -> tuple[Image, Image]:
        """Return image uint8 (H, W, 3) and labels (h, w) of this camera; `rng` draws the changes from frame to frame."""
        image = apply_corruption(_sharpened(self.recolor(image), self.sharpening), self.corruption, self.severity, rng)
        if self.circle:
            image, labels = _masked(image, labels, self.circle)
        if self.quality:
            image = _jpeg(image, self.quality)
        return image, labels

    def recolor(self, image: Image) -> Image:
        """Apply color, light and tone to uint8 (H, W, 3)."""
        height, width = image.shape[:2]
        light = cv2.resize(self.light, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
        seen = cv2.transform(image.astype(np.float32), self.mixing) * light
        return cv2.LUT(np.clip(seen, 0, 255).astype(np.uint8), self.curve[None]).astype(np.uint8)


def _sharpened(image: Image, amount: float) -> Image:
    """Apply an unsharp mask; 0 returns the image unchanged."""
    if not amount:
        return image
    soft = cv2.GaussianBlur(image, (0, 0), 1.2)
    return cv2.addWeighted(image, 1 + amount, soft, -amount, 0).astype(np.uint8)


def _mixing(rng: np.random.Generator, variety: float) -> NDArray[np.float32]:
    """Rotate hue about the gray axis, scale saturation, then scale the channels."""
    hue = rng.normal(0, 0.2 * variety) if rng.random() < 1 - 0.08 * variety**2 else rng.uniform(-np.pi, np.pi)
    saturation = np.exp(rng.normal(0, 0.35 * variety))
    gray = np.full((3, 3), 1 / 3)
    skew = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = gray + saturation * (np.cos(hue) * (np.eye(3) - gray) + np.sin(hue) * skew)
    gains = np.exp(rng.normal(0, 0.15 * variety, 3))
    return np.asarray(np.diag(gains) @ turn, np.float32)


def _curve(rng: np.random.Generator, variety: float) -> Image:
    """Draw a tone curve for each channel: gamma, contrast about a pivot, brightness."""
    x = np.linspace(0, 1, 256)[:, None]
    gamma = np.exp(variety * (rng.normal(0, 0.3) + rng.normal(0, 0.06, 3)))
    contrast, pivot, brightness = (
        np.exp(rng.normal(0, 0.2 * variety)),
        rng.uniform(0.2, 0.6),
        rng.normal(0, 0.05 * variety),
    )
    y = (x**gamma - pivot) * contrast + pivot + brightness
    return np.asarray(np.clip(np.rint(255 * y), 0, 255), np.uint8)


def _masked(image: Image, labels: Image, circle: tuple[float, float, float]) -> tuple[Image, Image]:
    """Blacken the outside of a circle, given in shares of the image width and height (radius: of the width)."""
    for array, value in ((image, 0), (labels, NOT_INSTRUMENT)):
        height, width = array.shape[:2]
        y, x = np.ogrid[:height, :width]
        outside = np.hypot((x + 0.5) / width - circle[0], ((y + 0.5) / height - circle[1]) * 0.8) > circle[2]
        array[outside] = value
    return image, labels


def _jpeg(image: Image, quality: int) -> Image:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
