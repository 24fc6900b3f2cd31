"""Shafts: long cylinders, printed with text, rings and stripes."""

from __future__ import annotations

import cv2
import numpy as np

from cliprl.pipeline.synthetic.instruments.shading import ShadingMap, shade
from cliprl.pipeline.synthetic.instruments.sprites import PAD, Outline, Paper, Sprite, finish, ribbon, soil
from cliprl.pipeline.synthetic.raster import Image, grid_noise

_LETTERS = np.array(list("ABCDEFGHIKLMNOPRSTUVXZ0123456789 "))


def _marks(rng: np.random.Generator, shape: tuple[int, int]) -> Image:
    """What is printed on a shaft: text, rings, stripes; uint8 (h, w), 255 where printed."""
    height, width = shape
    marks = np.zeros(shape, np.uint8)
    if rng.random() < 0.4:
        text = "".join(rng.choice(_LETTERS, int(rng.integers(4, 12))))
        size, x = height * rng.uniform(0.012, 0.022), int(rng.uniform(0, 0.6) * width)
        y = int(height * rng.uniform(0.5, 0.75))
        cv2.putText(marks, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, 255, max(1, height // 14), cv2.LINE_AA)
    for _ in range(int(rng.integers(0, 4)) if rng.random() < 0.4 else 0):
        x = int(rng.uniform(0.3, 1) * width)
        marks[:, x : x + max(1, int(height * rng.uniform(0.05, 0.5)))] = 255
    if rng.random() < 0.12:
        y = int(height * rng.uniform(0.2, 0.7))
        marks[y : y + max(1, int(height * rng.uniform(0.05, 0.15)))] = 255
    return marks


def cut_shaft(
    rng: np.random.Generator, length: float, scale: float, material: ShadingMap, print_: ShadingMap, angle: float
) -> Sprite:
    """A cylinder of diameter 1 that ends at (0, 0) and comes from (-length, 0), with something printed on it in places."""
    ends = np.array([[-length, 0.0], [0.0, 0.0]])
    paper = Paper(Outline([ribbon(ends, np.array([0.5, 0.5]))]), scale)
    height, width = paper.shape
    across = np.clip((np.arange(height) - paper.origin[1]) / (0.5 * scale), -1, 1).astype(np.float32)
    normal = np.asarray(np.repeat(across[:, None], 2, 1), np.float32)
    column = shade(material, np.zeros_like(normal), normal, angle)[:, :1]
    ink = shade(print_, np.zeros_like(normal), normal, angle)[:, :1]
    printed = (_marks(rng, paper.shape).astype(np.float32) / np.float32(255))[..., None]
    smear = np.float32(rng.uniform(0, 0.18)) * grid_noise(rng, (1, width), scale)
    smear = smear + np.float32(rng.uniform(0, 0.15)) * grid_noise(rng, (height, width), scale * rng.uniform(0.1, 0.6))
    ramp = np.linspace(rng.uniform(0.6, 1.6), 1, width, dtype=np.float32)
    color = (column * (1 - printed) + ink * printed) * ((1 + smear) * ramp)[..., None]
    soil(rng, color, scale * rng.uniform(0.2, 1.2))
    mask = np.zeros(paper.shape, np.uint8)
    mask[PAD:-PAD, PAD:-PAD] = 255
    return finish(color, mask, paper)
