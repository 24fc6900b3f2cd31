"""Small things that lie on the tissue and move with it: clamps, needles, threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from cliprl.pipeline.synthetic.classes import CLAMPS, NEEDLE, THREAD
from cliprl.pipeline.synthetic.instruments.instruments import Instrument
from cliprl.pipeline.synthetic.instruments.part_shapes import clamp, needle
from cliprl.pipeline.synthetic.instruments.rgba_layer import Matrix, RgbaLayer, project, rotation_2d, shift
from cliprl.pipeline.synthetic.instruments.shading import make_material
from cliprl.pipeline.synthetic.instruments.sprites import cut_sprite
from cliprl.pipeline.synthetic.raster import Field, RasterShape, Wander

_CLAMPS = ("steel", "steel", "dull steel", "blue", "white", "green", "purple", "gold")
_THREADS = ((35, 40, 130), (90, 45, 130), (15, 15, 20), (225, 220, 210), (40, 120, 90), (200, 170, 60), (110, 150, 200))


class Anchored(Protocol):
    """Something on the tissue; `camera` takes the tissue plate's pixels to the image's."""

    phrase: str

    def draw(self, overlay: RgbaLayer, camera: Matrix, t: float, owner: int) -> None:
        """Draw it as it is at `t` seconds, as thing number `owner`."""
        ...


def _place(rng: np.random.Generator, plate: RasterShape) -> tuple[float, float]:
    return plate[1] * rng.uniform(0.25, 0.75), plate[0] * rng.uniform(0.25, 0.75)


class _Lying:
    """A clamp or a needle."""

    def __init__(self, rng: np.random.Generator, plate: RasterShape, unit: float, tissue: Field, label: int) -> None:
        self.label, self.phrase = label, "a clamp" if label == CLAMPS else "a suturing needle"
        scale = unit * (rng.uniform(0.03, 0.1) if label == CLAMPS else rng.uniform(0.03, 0.11))
        angle = rng.uniform(0, 2 * np.pi)
        stuff = _CLAMPS[rng.integers(len(_CLAMPS))] if label == CLAMPS else "steel"
        outline = clamp(rng) if label == CLAMPS else needle(rng)
        self._sprite = cut_sprite(rng, outline, max(scale, 5.0), make_material(rng, stuff, tissue), angle)
        self._frame = shift(*_place(rng, plate)) @ rotation_2d(angle, scale * rng.uniform(0.6, 1), scale)

    def draw(self, overlay: RgbaLayer, camera: Matrix, t: float, owner: int) -> None:
        """Draw it where the camera sees it."""
        overlay.sprite(self._sprite, camera @ self._frame, self.label, owner)


class _Thread:
    """A suture: it winds over the tissue, and may end at an instrument's tip."""

    phrase = "a thread"

    def __init__(self, rng: np.random.Generator, plate: RasterShape, unit: float, holder: Instrument | None) -> None:
        turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.35, 30))
        steps = unit * rng.uniform(0.008, 0.04) * np.stack([np.cos(turns), np.sin(turns)], 1)
        self._points = np.cumsum(steps, 0) + _place(rng, plate)
        self._width = max(unit * rng.uniform(0.003, 0.014), 1.0)
        color = np.array(_THREADS[rng.integers(len(_THREADS))], np.float32)
        self._color = np.asarray(color * rng.uniform(0.7, 1.2), np.float32)
        self._holder, self._sag = holder, Wander(rng, unit * 0.15, 4)

    def draw(self, overlay: RgbaLayer, camera: Matrix, t: float, owner: int) -> None:
        """Draw it, taut or sagging to its holder."""
        points = project(camera, self._points)
        if self._holder is not None:
            end = np.array(self._holder.tip(t))
            share = np.linspace(0, 1, 16)[1:, None]
            middle = (points[-1] + end) / 2 + [self._sag(t), self._sag(t + 1)]
            bow = (1 - share) ** 2 * points[-1] + 2 * share * (1 - share) * middle + share**2 * end
            points = np.concatenate([points, bow])
        overlay.line(points, self._width, self._color, THREAD, owner)


def lay_things(
    rng: np.random.Generator, plate: RasterShape, unit: float, tissue: Field, instruments: Sequence[Instrument]
) -> list[Anchored]:
    """What lies on this scene's tissue: often nothing."""
    things: list[Anchored] = []
    if rng.random() < 0.12:
        things += [_Lying(rng, plate, unit, tissue, CLAMPS) for _ in range(int(rng.integers(1, 4)))]
    if rng.random() < 0.07:
        things.append(_Lying(rng, plate, unit, tissue, NEEDLE))
    if rng.random() < 0.14:
        holder = instruments[int(rng.integers(len(instruments)))] if instruments and rng.random() < 0.6 else None
        things.append(_Thread(rng, plate, unit, holder))
    return things
