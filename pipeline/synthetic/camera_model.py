"""The recording of a scene: focus, exposure, colors, noise, compression."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.synthetic.raster import Field, Image, RasterShape, blur, look_up

_SLACK = 48  # pixels by which the noise is larger than the image, so that each frame's may be another piece of it
_LUMA = np.array([0.299, 0.587, 0.114])


class Focus:
    """Defocus, motion blur and a camera's sharpening, each in some scenes."""

    def __init__(self, rng: np.random.Generator, shape: RasterShape) -> None:
        unit = min(shape)
        self._sigma = unit * rng.uniform(0.001, 0.011) if rng.random() < 0.35 else 0.0
        self._halo = rng.uniform(0.3, 1.4) if rng.random() < 0.3 else 0.0
        self._halo_sigma = unit * rng.uniform(0.002, 0.008)
        self._streak = self._kernel(rng, unit) if rng.random() < 0.1 else None

    @staticmethod
    def _kernel(rng: np.random.Generator, unit: int) -> Field:
        length = (
            max(3, int(unit * rng.uniform(0.005, 0.025))) | 1
        )  # the image is streaked at half its size: twice as fast
        kernel = np.zeros((length, length), np.float32)
        angle, half = rng.uniform(0, np.pi), length // 2
        reach = half * np.array([np.cos(angle), np.sin(angle)])
        start, end = np.round(half - reach).astype(int), np.round(half + reach).astype(int)
        cv2.line(kernel, start.tolist(), end.tolist(), 1.0)
        return np.asarray(kernel / kernel.sum(), np.float32)

    def __call__(self, rgb: Image) -> Image:
        """`rgb` as the lens and the camera's processor show it."""
        if self._streak is not None:
            small = cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            rgb = np.asarray(cv2.resize(cv2.filter2D(small, -1, self._streak), rgb.shape[1::-1]), np.uint8)
        rgb = np.asarray(blur(rgb, self._sigma), np.uint8)
        if self._halo:
            rgb = np.asarray(
                cv2.addWeighted(rgb, 1 + self._halo, blur(rgb, self._halo_sigma), -self._halo, 0), np.uint8
            )
        return rgb


class CameraModel:
    """Exposure, white balance, gamma, saturation, noise and compression."""

    def __init__(self, rng: np.random.Generator, shape: RasterShape) -> None:
        self._matrix, self._curve = self._colors(rng)
        strength = rng.uniform(0.3, 3.5) if rng.random() < 0.8 else rng.uniform(3.5, 13)
        self._noise = self._grain(rng, (shape[0] + _SLACK, shape[1] + _SLACK), strength)
        self._quality = int(rng.uniform(20, 90)) if rng.random() < 0.35 else 0

    @staticmethod
    def _colors(rng: np.random.Generator) -> tuple[Field, Image]:
        saturation, hue = rng.uniform(0.65, 1.6), rng.normal(0, 0.02, (3, 3))
        matrix = (1 - saturation) * np.tile(_LUMA, (3, 1)) + saturation * np.eye(3) + hue - hue.mean(1, keepdims=True)
        level = np.arange(256)[:, None] / 255
        balance = np.exp(rng.normal((0.03, -0.05, -0.03), 0.07))
        exposed = np.clip(level * balance * np.exp(rng.normal(0.2, 0.25)), 0, 1) ** np.exp(rng.normal(-0.1, 0.25))
        lift = rng.uniform(0, 0.06) if rng.random() < 0.3 else 0.0
        curve = np.clip((lift + (1 - lift) * exposed) * 255, 0, 255).astype(np.uint8)
        return matrix.astype(np.float32), curve.reshape(1, 256, 3)

    @staticmethod
    def _grain(rng: np.random.Generator, shape: RasterShape, strength: float) -> NDArray[np.int16]:
        grain = rng.integers(-127, 128, (*shape, 3), np.int8).astype(np.float32)
        soft = blur(grain, rng.uniform(0.3, 1.0)) if rng.random() < 0.5 else grain
        gray = rng.random() < 0.4
        if gray:
            soft = np.repeat(soft[..., :1], 3, 2)
        return np.round(soft * np.float32(strength / max(float(soft[::4, ::4].std()), 1e-3))).astype(np.int16)

    def develop(self, rgb: Image) -> Image:
        """Exposure and colors."""
        return look_up(cv2.transform(rgb, self._matrix), self._curve)

    def record(self, rgb: Image, t: float) -> Image:
        """Noise, which is another at every `t`, and compression."""
        height, width = rgb.shape[:2]
        top, left = np.random.default_rng(round(t * 1e6) & (2**63 - 1)).integers(0, _SLACK, 2)
        noise = self._noise[top : top + height, left : left + width]
        noisy = np.asarray(cv2.add(rgb, noise, dtype=cv2.CV_8U), np.uint8)
        if not self._quality:
            return noisy
        packed = cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, self._quality])[1]
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
