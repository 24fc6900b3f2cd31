"""Instruments that reach into the image: a shaft in perspective, and the parts that hang and turn on its end."""

from __future__ import annotations

import numpy as np

from cliprl.pipeline.synthetic.instruments.instrument_kinds import InstrumentPlan, PartPlan, plan_instrument
from cliprl.pipeline.synthetic.instruments.rgba_layer import Matrix, RgbaLayer, rotation_2d, shift
from cliprl.pipeline.synthetic.instruments.shading import ShadingMap, make_material
from cliprl.pipeline.synthetic.instruments.shafts import cut_shaft
from cliprl.pipeline.synthetic.instruments.sprites import Sprite, cut_sprite
from cliprl.pipeline.synthetic.raster import Field, RasterShape, Wander

_FINEST, _COARSEST = 6.0, 220.0  # pixels of a sprite to a diameter


class _Part:
    """A part, cut, with its motion."""

    def __init__(self, rng: np.random.Generator, plan: PartPlan, sprite: Sprite, reach: list[float]) -> None:
        self.plan, self.sprite = plan, sprite
        self.swing = Wander(rng, plan.swing, rng.uniform(3, 8))
        self.bias = rng.normal(0, plan.swing * 0.6)
        self.tilt = rng.uniform(0.55, 1.05) if plan.swing else 1.0  # foreshortening
        far = reach[plan.parent] if plan.parent >= 0 else 0.0
        self.at = plan.at if plan.at is not None else (far, 0.0)
        self.turned = rng.uniform(0, 2 * np.pi) if plan.at is not None else 0.0

    def matrix(self, parent: Matrix, t: float, gape: float) -> Matrix:
        """From the part's units to the image, given its parent's."""
        sign = -1.0 if self.plan.mirrored else 1.0
        angle = sign * gape if self.plan.opens else self.bias + self.swing(t) + self.turned
        return parent @ shift(*self.at) @ rotation_2d(angle, self.tilt, sign)


class _Motion:
    """Where an instrument's shaft ends, how it lies and how wide its jaws stand, over time."""

    def __init__(self, rng: np.random.Generator, shape: RasterShape, gape: float) -> None:
        height, width = shape
        unit = min(shape)
        reach = 0.38 if rng.random() < 0.8 else 0.55
        self.x, self.y = width * (0.5 + rng.uniform(-reach, reach)), height * (0.5 + rng.uniform(-reach, reach))
        away = np.array([self.x - width / 2, self.y - height / 2]) / unit
        outward = rng.normal(0, 0.6, 2) + rng.uniform(-0.6, 1.2) * away + [0, 0.25]
        self.angle = float(np.arctan2(-outward[1], -outward[0]))
        pace = rng.uniform(3, 9)
        self._along = Wander(rng, unit * rng.uniform(0.02, 0.22), pace)
        self._across = Wander(rng, unit * rng.uniform(0.01, 0.12), pace * rng.uniform(0.7, 1.4))
        self._sway = Wander(rng, rng.uniform(0.01, 0.18), pace * rng.uniform(0.8, 1.6))
        self._depth = Wander(rng, rng.uniform(0, 0.12), pace)
        self._open, self._gape = Wander(rng, 1.0, rng.uniform(1.5, 5)), gape
        self._closed = rng.uniform(-0.5, 1)

    def frame(self, t: float, diameter: float) -> Matrix:
        """From units of the diameter, at the shaft's end, to the image."""
        angle, along, across = self.angle + self._sway(t), self._along(t), self._across(t)
        c, s = np.cos(self.angle), np.sin(self.angle)
        scale = diameter * float(np.exp(self._depth(t)))
        return shift(self.x + c * along - s * across, self.y + s * along + c * across) @ rotation_2d(
            angle, scale, scale
        )

    def gape(self, t: float) -> float:
        """Half the jaws' opening in radians: closed for some of the time."""
        return self._gape * float(np.clip(0.5 + 0.7 * self._open(t) - 0.3 * self._closed, 0.01, 1))


def _diameter(rng: np.random.Generator, width: int) -> float:
    """Pixels: mostly 5 to 18 % of the width, at times next to the lens."""
    share = rng.uniform(0.2, 0.45) if rng.random() < 0.07 else np.exp(rng.normal(np.log(0.07), 0.55))
    return width * float(np.clip(share, 0.03, 0.45))


class Instrument:
    """One instrument. `phrase` names it; `diameter` is its shaft's, in pixels."""

    def __init__(self, rng: np.random.Generator, shape: RasterShape, tissue: Field) -> None:
        plan = plan_instrument(rng)
        self.phrase, self.diameter = plan.phrase, _diameter(rng, shape[1])
        self._motion = _Motion(rng, shape, plan.gape)
        self._scale = float(np.clip(self.diameter, _FINEST, _COARSEST))
        self._label = plan.shaft_label
        near = max(0.0, self.diameter / shape[1] - 0.12)
        self.softness = min(shape) * near * rng.uniform(0, 0.12) if rng.random() < 0.6 else 0.0
        self._cut_shaft(rng, plan, shape, tissue)
        self._cut_parts(rng, plan, tissue)

    def _cut_shaft(self, rng: np.random.Generator, plan: InstrumentPlan, shape: RasterShape, tissue: Field) -> None:
        taper, thick = rng.uniform(1.0, 2.4), plan.shaft_width
        length = (np.hypot(*shape) * 0.75 + 0.4 * min(shape)) / self.diameter / taper
        self._perspective = np.array([[1, 0, 0], [0, 1, 0], [(1 - 1 / taper) / length, 0, 1]])
        self._thick = rotation_2d(0, thick, thick)
        material = make_material(rng, plan.shaft_stuff, tissue)
        ink = make_material(rng, "carbon" if float(material.mean()) > 90 else "white", tissue)
        scale = max(self._scale * thick, _FINEST)
        self._shaft = cut_shaft(rng, length / thick, scale, material, ink, self._motion.angle)

    def _cut_parts(self, rng: np.random.Generator, plan: InstrumentPlan, tissue: Field) -> None:
        materials: dict[str, ShadingMap] = {}
        self._parts: list[_Part] = []
        reach = []
        for part in plan.parts:
            if part.stuff not in materials:
                materials[part.stuff] = make_material(rng, part.stuff, tissue)
            sprite = cut_sprite(rng, part.outline, self._scale, materials[part.stuff], self._motion.angle)
            reach.append(float(part.outline.bodies[0][:, 0].max()) * 0.93)
            self._parts.append(_Part(rng, part, sprite, reach))

    def draw(self, overlay: RgbaLayer, t: float, owner: int) -> None:
        """Draw it as it is at `t` seconds, as thing number `owner`."""
        base, gape = self._motion.frame(t, self.diameter), self._motion.gape(t)
        overlay.sprite(self._shaft, base @ self._perspective @ self._thick, self._label, owner, self.softness)
        frames: list[Matrix] = []
        for part in self._parts:
            parent = frames[part.plan.parent] if part.plan.parent >= 0 else base
            frames.append(part.matrix(parent, t, gape))
            overlay.sprite(part.sprite, frames[-1], part.plan.label, owner, self.softness)

    def tip(self, t: float) -> tuple[float, float]:
        """Where its shaft ends, in pixels."""
        frame = self._motion.frame(t, self.diameter)
        return float(frame[0, 2]), float(frame[1, 2])
