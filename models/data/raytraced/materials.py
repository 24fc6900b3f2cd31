"""Surfaces of instruments and small objects: reflectances of metal, plastic and lacquer, drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cliprl.models.data.raytraced.geometry import Rng

Reflectance = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Material:
    """A surface of one color: linear reflectance (R, G, B) in 0..1 and the parameters of a principled reflectance model."""

    color: Reflectance
    metallic: float
    roughness: float
    specular: float = 0.5
    clearcoat: float = 0.02


def material(
    color: ArrayLike, metallic: float, roughness: float, specular: float = 0.5, clearcoat: float = 0.02
) -> Material:
    """Return a material; its values are clipped to what a renderer takes, none of them exactly 0 or 1."""
    red, green, blue = np.clip(np.broadcast_to(np.asarray(color, float), 3), 0.003, 0.98).tolist()
    metal, coat = float(np.clip(metallic, 0.001, 0.999)), float(np.clip(clearcoat, 0.02, 0.98))
    return Material((red, green, blue), metal, float(roughness), float(specular), coat)


def steel(rng: Rng) -> Material:
    """Bright or brushed metal, which mirrors the tissue."""
    tint = np.array([1, rng.uniform(0.95, 1), rng.uniform(0.88, 1)])
    return material(rng.uniform(0.35, 0.92) * tint, rng.uniform(0.85, 1), rng.uniform(0.12, 0.5))


def dark_metal(rng: Rng) -> Material:
    """Blackened or worn metal."""
    return material(rng.uniform(0.03, 0.28), 1.0, rng.uniform(0.2, 0.55))


def black(rng: Rng) -> Material:
    """Black insulation, matt to glossy."""
    value = np.exp(rng.uniform(np.log(0.008), np.log(0.06))) * np.exp(rng.normal(0, 0.12, 3))
    return material(value, 0, rng.uniform(0.22, 0.65), rng.uniform(0.3, 0.6), rng.uniform(0.02, 0.4))


def matt(rng: Rng) -> Material:
    """Matt dark-gray coating, which hardly shines even in the beam."""
    value = np.exp(rng.uniform(np.log(0.015), np.log(0.09))) * np.exp(rng.normal(0, 0.06, 3))
    return material(value, 0, rng.uniform(0.5, 0.85), rng.uniform(0.15, 0.4))


def gray(rng: Rng) -> Material:
    """Gray plastic or lacquer."""
    tint = np.array([rng.uniform(0.85, 1.02), 1, rng.uniform(0.88, 1.08)])
    value = np.exp(rng.uniform(np.log(0.05), np.log(0.32))) * tint
    metallic = float(rng.choice([0, rng.uniform(0.1, 0.6)]))
    return material(value, metallic, rng.uniform(0.25, 0.6), rng.uniform(0.3, 0.6), rng.uniform(0.02, 0.4))


# Linear reflectances of colored shafts, and how often each is drawn: white first.
PAINTS = (
    (0.75, 0.74, 0.7),
    (0.06, 0.14, 0.45),
    (0.08, 0.32, 0.16),
    (0.55, 0.45, 0.12),
    (0.1, 0.28, 0.3),
    (0.45, 0.42, 0.36),
)
_PAINT_SHARES = (0.4, 0.2, 0.12, 0.08, 0.1, 0.1)


def painted_plastic(rng: Rng) -> Material:
    """White, blue, green, yellow, teal or beige plastic."""
    value = np.array(PAINTS[rng.choice(len(PAINTS), p=_PAINT_SHARES)]) * np.exp(rng.normal(0, 0.15, 3))
    return material(value, 0, rng.uniform(0.25, 0.6), 0.5, rng.uniform(0.02, 0.5))


_SHAFTS = (black, matt, gray, steel, painted_plastic, dark_metal)
_TIPS = (steel, dark_metal, black, matt, gray, painted_plastic)
_WRISTS = (steel, black, matt, gray)


def instrument_materials(rng: Rng, robotic: bool, dark: bool) -> dict[str, Material]:
    """Draw the materials of an instrument: its slots are shaft, ring, wrist, clevis and tip.

    A `robotic` one is mostly steel with a black clevis; a `dark` one has a matt or black shaft and mostly dark jaws.
    """
    shares = [0.2, 0.12, 0.1, 0.5, 0.03, 0.05] if robotic else [0.26, 0.15, 0.24, 0.22, 0.1, 0.03]
    shaft = _draw(rng, (matt, black, gray), [0.6, 0.25, 0.15]) if dark else _draw(rng, _SHAFTS, shares)
    tips = [0.2, 0.3, 0.25, 0.2, 0.05, 0.0] if dark else [0.54, 0.18, 0.1, 0.06, 0.1, 0.02]
    tip = _draw(rng, _TIPS, tips)
    wrist = tip if rng.random() < 0.5 else _draw(rng, _WRISTS, [0.5, 0.2, 0.1, 0.2])
    clevis = _draw(rng, (black, steel, gray), [0.5, 0.32, 0.18])
    return {
        "shaft": shaft,
        "tip": tip,
        "wrist": wrist,
        "clevis": clevis,
        "ring": _draw(rng, (black, steel, gray, painted_plastic), [0.25] * 4),
    }


def _draw(rng: Rng, makers: Sequence[Callable[[Rng], Material]], shares: Sequence[float]) -> Material:
    return makers[rng.choice(len(makers), p=shares)](rng)
