"""Blood vessels on tissue: branching, winding lines of several widths."""

from __future__ import annotations

import cv2
import numpy as np

from cliprl.pipeline.synthetic.raster import Field, Image, blur, spread

_COLORS = ((150, 35, 35), (120, 25, 40), (95, 60, 110), (185, 60, 50), (110, 20, 20))
_STEPS = 24


def _branch(
    rng: np.random.Generator, canvas: Image, start: tuple[float, float], angle: float, width: float, step: float
) -> None:
    """Draw one vessel and, along it, its thinner branches."""
    turns = angle + np.cumsum(rng.normal(0, 0.22, _STEPS))
    steps = step * np.stack([np.cos(turns), np.sin(turns)], 1)
    points = np.cumsum(steps, 0) + start
    thickness = max(1, round(width))
    strength = int(255 * min(1.0, width))
    cv2.polylines(canvas, [np.round(points * 16).astype(np.int32)], False, strength, thickness, cv2.LINE_AA, 4)
    if width < 0.7:
        return
    for at in rng.integers(3, _STEPS, int(rng.integers(1, 4))):
        turn = float(turns[at] + rng.choice([-1, 1]) * rng.uniform(0.3, 1.1))
        _branch(rng, canvas, (points[at, 0], points[at, 1]), turn, width * rng.uniform(0.4, 0.7), step * 0.75)


def draw_vessels(rng: np.random.Generator, color: Field, strength: Field, unit: float) -> Field:
    """`color` (h, w, 3) with vessels painted on it, as strongly as `strength` (h, w), 0..1, says."""
    height, width = strength.shape
    for _ in range(int(rng.integers(0, 3))):
        canvas = np.zeros(strength.shape, np.uint8)
        thickness = unit * rng.uniform(0.003, 0.012)
        for _ in range(int(rng.integers(2, 10))):
            start = (rng.uniform(0, width), rng.uniform(0, height))
            _branch(rng, canvas, start, rng.uniform(0, 2 * np.pi), thickness, unit * rng.uniform(0.01, 0.035))
        soft = blur(canvas, 0.3 + rng.uniform(0, 0.004) * unit).astype(np.float32)
        alpha = soft * strength * np.float32(rng.uniform(0.3, 0.9) / 255)
        tint = np.array(_COLORS[rng.integers(len(_COLORS))], np.float32)
        painted = cv2.transform(alpha, tint[:, None])
        color = np.asarray(cv2.add(cv2.multiply(color, spread(1 - alpha)), painted), np.float32)
    return color
