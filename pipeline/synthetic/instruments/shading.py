"""How instruments catch the light: a material is a small image of a lit ball, looked up by a surface's normal."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cliprl.pipeline.synthetic.raster import Field

_SIZE = 40
ShadingMap = Field  # (40, 40, 3): color 0..255 by the normal's y and x, each -1..1


@dataclass(frozen=True, slots=True)
class _Stuff:
    dark: tuple[int, int, int]
    light: tuple[int, int, int]
    metal: tuple[float, float]  # how much it mirrors its surroundings
    gloss: tuple[float, float]  # the strength of its highlights


_STUFF = {
    "carbon": _Stuff((8, 8, 10), (42, 42, 46), (0.0, 0.3), (0.1, 0.7)),
    "dark gray": _Stuff((50, 52, 55), (100, 102, 105), (0.1, 0.7), (0.1, 0.7)),
    "steel": _Stuff((120, 122, 124), (225, 225, 225), (0.5, 1.0), (0.3, 1.6)),
    "dull steel": _Stuff((105, 105, 100), (185, 182, 175), (0.1, 0.5), (0.1, 0.5)),
    "white": _Stuff((175, 172, 165), (245, 245, 240), (0.0, 0.1), (0.1, 0.5)),
    "blue": _Stuff((30, 60, 120), (120, 170, 220), (0.0, 0.2), (0.2, 0.7)),
    "beige": _Stuff((150, 130, 100), (215, 195, 165), (0.0, 0.2), (0.1, 0.6)),
    "green": _Stuff((20, 90, 70), (90, 190, 150), (0.0, 0.2), (0.2, 0.6)),
    "purple": _Stuff((80, 40, 110), (160, 120, 190), (0.0, 0.2), (0.2, 0.6)),
    "gold": _Stuff((140, 105, 45), (220, 190, 120), (0.4, 0.9), (0.3, 1.2)),
}


def _surroundings(rng: np.random.Generator, nx: Field, ny: Field) -> Field:
    """What a mirror shows: bright and dark bands, about 1 on average."""
    angle = rng.uniform(0, np.pi)
    knots = rng.uniform(0.1, 1.3, 10)
    knots[3:7] = np.maximum(knots[3:7], rng.uniform(0.3, 1.5, 4))
    across = nx * np.float32(np.cos(angle)) + ny * np.float32(np.sin(angle))
    return np.interp(across, np.linspace(-1, 1, 10), knots).astype(np.float32)


def make_material(rng: np.random.Generator, stuff: str, tissue: Field) -> ShadingMap:
    """One sample of `stuff` (a name such as "steel") amid tissue whose mean color is `tissue` (3,), 0..255."""
    kind = _STUFF[stuff]
    axis = np.linspace(-1, 1, _SIZE, dtype=np.float32)
    nx, ny = np.meshgrid(axis, axis)
    slope2 = np.minimum(nx * nx + ny * ny, 1)
    nz = np.sqrt(1 - slope2)
    lx, ly = rng.normal(0, 0.3, 2).astype(np.float32)
    lit = np.clip(nz + lx * nx + ly * ny, 0, 1.2) ** np.float32(rng.uniform(0.7, 1.8))
    metal = np.float32(rng.uniform(*kind.metal))
    body = (1 - metal) * (np.float32(0.2) + np.float32(0.8) * lit) + metal * _surroundings(rng, nx, ny)
    dark, light = np.array(kind.dark, np.float32), np.array(kind.light, np.float32)
    base = dark + (light - dark) * np.float32(rng.random())
    tint = 1 + (tissue / max(float(tissue.mean()), 1) - 1) * np.float32(rng.uniform(0.1, 0.8))
    rim = (slope2 ** np.float32(1.5))[..., None]
    color = body[..., None] * base * (1 + (tint - 1) * rim) + rim * tissue * np.float32(rng.uniform(0, 0.35))
    for _ in range(int(rng.integers(1, 4))):
        ax, ay = rng.normal(0, 0.35, 2).astype(np.float32)
        width = np.float32(np.exp(rng.uniform(np.log(0.06), np.log(0.5))))
        away = ((nx - ax) ** 2 + (ny - ay) ** 2) / (width * width)
        color += (np.exp(-away) * np.float32(255 * rng.uniform(*kind.gloss) * rng.uniform(0.3, 1)))[..., None]
    return np.asarray(color * np.float32(rng.uniform(0.7, 1.2)), np.float32)


def shade(material: ShadingMap, nx: Field, ny: Field, angle: float) -> Field:
    """Colors (h, w, 3) of a surface with normals (nx, ny), which stands turned by `angle` in the image."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    half = np.float32((_SIZE - 1) / 2)
    x, y = (c * nx - s * ny + 1) * half, (s * nx + c * ny + 1) * half
    return np.asarray(cv2.remap(material, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)
