"""Procedural instruments in millimetres: +z points to the tip, and the jaws turn about the origin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from cliprl.models.data.raytraced.geometry import Array, Mesh, Rng, rod, rotation, sweep, translation, tube

# Parts, by the numbers that label maps hold.
SHAFT_PART, TIP_PART, WRIST_PART = 1, 2, 3
# How long a shaft is: its far end lies outside every frame.
LENGTH = 340.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A mesh of an instrument, the part that it belongs to, and the slot of its material."""

    mesh: Mesh
    part: int
    slot: str


@dataclass(frozen=True, slots=True)
class InstrumentMesh:
    """An instrument of a kind; its tip lies `reach` mm beyond the origin. Robotic ones have an 8 mm shaft and a wrist."""

    kind: str
    pieces: tuple[Piece, ...]
    reach: float
    robotic: bool = False

    def scaled(self, factor: float) -> InstrumentMesh:
        """Scale all of it."""
        pieces = tuple(Piece(piece.mesh.scaled(factor), piece.part, piece.slot) for piece in self.pieces)
        return InstrumentMesh(self.kind, pieces, self.reach * factor, self.robotic)


def long_shaft(rng: Rng, radius: float, end: float, wrist: bool) -> list[Piece]:
    """Return a shaft up to z = `end`, perhaps with a ring of another color, and an end piece where `wrist` is true."""
    pieces = []
    if wrist:
        length = rng.uniform(1.0, 5.0) * radius
        z = np.linspace(end - length, end, 6)
        width = np.linspace(0.99, rng.uniform(0.75, 1.0), 6) * radius
        pieces.append(Piece(sweep(np.stack([0 * z, 0 * z, z], 1), width, width, 28), WRIST_PART, "wrist"))
        end -= length
    if rng.random() < 0.25:
        length, gap = rng.uniform(0.5, 4) * radius, rng.uniform(2, 12) * radius
        pieces.append(Piece(tube(radius * rng.uniform(1.0, 1.04), end - gap - length, end - gap), SHAFT_PART, "ring"))
    return [*pieces, Piece(tube(radius, end - LENGTH, end), SHAFT_PART, "shaft")]


def _blade(rng: Rng, length: float, width: float, thickness: float, bend: float, point: float, teeth: bool) -> Mesh:
    """Return a jaw from the origin to z = length that tapers to `point` of its width and bends towards +y."""
    u = np.linspace(0, 1, 48 if teeth else 18)
    round_tip = np.where(u > 0.93, np.sqrt(np.clip(1 - ((u - 0.93) / 0.07) ** 2, 0.05, 1)), 1)
    taper = (1 - (1 - point) * u) * round_tip
    notch = 1 - 0.16 * (np.sin(u * length * 2.6) > 0) * (u > 0.25) if teeth else 1
    path = np.stack([0 * u, bend * length * u**2, u * length], 1)
    return sweep(path, width * taper, thickness * taper * notch, 18, float(rng.choice([2.0, 2.6, 4.0])))


def _loop(length: float, width: float, wire: float, bend: float) -> Mesh:
    """Return a fenestrated jaw: a flat wire that runs out, round the tip and back."""
    turn = np.linspace(-np.pi / 2, np.pi / 2, 10)
    out = np.linspace(0, length - width, 8)[:-1]
    z = np.concatenate([out, length - width + width * np.cos(turn), out[::-1]])
    x = np.concatenate([-width + 0 * out, width * np.sin(turn), width + 0 * out])
    x = x * np.clip(0.45 + z / (0.4 * length), 0, 1)
    return sweep(np.stack([x, bend * length * (z / length) ** 2, z], 1), wire, wire, 10)


def _pair(make: Callable[[int], Mesh], opening: float, gap: float) -> list[Piece]:
    """Return two jaws that are `opening` radians apart from the axis."""
    return [
        Piece(make(s).moved(rotation(-s * opening, [1, 0, 0]) @ translation(0, s * gap, 0)), TIP_PART, "tip")
        for s in (1, -1)
    ]


def _pivot(rng: Rng, radius: float) -> Piece:
    return Piece(rod(1.9 * radius, rng.uniform(0.55, 0.85) * radius), TIP_PART, "tip")


def _grasper(rng: Rng, opening: float) -> InstrumentMesh:
    length, width, thickness = rng.uniform(14, 45), rng.uniform(1.1, 2.4), rng.uniform(0.5, 1.2)
    bend, teeth = rng.uniform(-0.2, 0.2) * (rng.random() < 0.5), rng.random() < 0.4
    if rng.random() < 0.45:
        jaws = _pair(lambda s: _loop(length, width * 1.2, thickness * 0.8, bend), opening, thickness)
    else:
        point = rng.uniform(0.4, 0.95)
        jaws = _pair(lambda s: _blade(rng, length, width, thickness, bend, point, teeth), opening, thickness * 1.02)
    return InstrumentMesh("grasper", (*jaws, _pivot(rng, 2.5), *long_shaft(rng, 2.5, -1.0, True)), length)


def _dissector(rng: Rng, opening: float) -> InstrumentMesh:
    length, bend = rng.uniform(14, 24), rng.uniform(0.15, 0.4)
    jaws = _pair(lambda s: _blade(rng, length, 1.6, 0.8, bend, 0.25, False), opening, 0.8)
    return InstrumentMesh("dissector", (*jaws, _pivot(rng, 2.5), *long_shaft(rng, 2.5, -1.0, True)), length)


def _scissors(rng: Rng, opening: float) -> InstrumentMesh:
    length, bend = rng.uniform(11, 20), rng.uniform(0, 0.3)
    opening = opening + 0.05
    make = [_blade(rng, length, 0.45, rng.uniform(1.1, 1.7), 0.0, rng.uniform(0.15, 0.4), False) for _ in range(2)]
    jaws = [
        Piece(
            make[i].moved(translation(0.5 * s, 0, 0) @ rotation(s * opening, [1, 0, 0]) @ rotation(bend, [0, 1, 0])),
            TIP_PART,
            "tip",
        )
        for i, s in enumerate((1, -1))
    ]
    return InstrumentMesh("scissors", (*jaws, _pivot(rng, 2.5), *long_shaft(rng, 2.5, -1.0, True)), length)


def _hook(rng: Rng, opening: float) -> InstrumentMesh:
    length, height, radius = rng.uniform(8, 25), rng.uniform(2, 6), rng.uniform(0.8, 2.0)
    u, turn = np.linspace(0, 1, 8), np.linspace(0, np.pi / 2, 8)
    straight = np.stack([0 * u, 0 * u, u * length], 1)
    corner = np.stack([0 * turn, radius * (1 - np.cos(turn)), length + radius * np.sin(turn)], 1)
    end = np.stack([0 * u, radius + u * height, 0 * u + length + radius], 1)
    path = np.concatenate([straight, corner[1:], end[1:]])
    width = np.full(len(path), rng.uniform(0.4, 0.9))
    width[-2:] *= [0.9, 0.5]
    sleeve = tube(rng.uniform(1.2, 1.9), -2, length * rng.uniform(0.3, 0.8))
    pieces = [Piece(sweep(path, width, width, 14), TIP_PART, "tip"), Piece(sleeve, TIP_PART, "ring")]
    return InstrumentMesh("hook", (*pieces, *long_shaft(rng, 2.5, 0, rng.random() < 0.4)), length + radius)


def _suction(rng: Rng, opening: float) -> InstrumentMesh:
    length, end = rng.uniform(5, 60), 2.5 * float(rng.choice([1.0, rng.uniform(0.6, 1.0)]))
    z = np.array([-1.0, 0, length * 0.5, length - 0.3, length])
    width = np.array([2.5, end, end, end, end * 0.93])
    nozzle = sweep(np.stack([0 * z, 0 * z, z], 1), width, width, 28, bore=rng.uniform(0.6, 0.85))
    holes = [
        Piece(
            rod(2 * end + 0.2, 0.5, 10).moved(rotation(turn, [0, 0, 1]) @ translation(0, 0, length * at)),
            TIP_PART,
            "bore",
        )
        for at, turn in zip(rng.uniform(0.5, 0.9, 3), rng.uniform(0, 3, 3), strict=True)
    ]
    pieces = (Piece(nozzle, TIP_PART, "tip"), *holes[: int(rng.integers(0, 4))])
    return InstrumentMesh("suction", (*pieces, *long_shaft(rng, 2.5, -0.5, rng.random() < 0.3)), length)


def _stapler(rng: Rng, opening: float) -> InstrumentMesh:
    length, slot = rng.uniform(30, 60), str(rng.choice(["tip", "tip", "ring"]))
    jaws = [
        Piece(
            _blade(rng, length, 4.6, thick, 0, rng.uniform(0.7, 0.95), False).moved(
                rotation(-s * 0.5 * opening, [1, 0, 0]) @ translation(0, s * thick, 0)
            ),
            TIP_PART,
            slot,
        )
        for s, thick in ((1, 2.4), (-1, 1.7))
    ]
    return InstrumentMesh("stapler", (*jaws, *long_shaft(rng, 5.5, 0.5, True)), length)


def _clip_applier(rng: Rng, opening: float) -> InstrumentMesh:
    length, gap = rng.uniform(12, 22), rng.uniform(1.8, 3.2)
    bow = np.linspace(0, 1, 16)
    path = np.stack(
        [0 * bow, gap * np.sqrt(np.clip(bow / 0.35, 0, 1)) - 0.25 * gap * np.clip(bow - 0.6, 0, 1), bow * length], 1
    )
    thick = np.where(bow > 0.9, 0.7, 0.9)
    jaws = _pair(lambda s: sweep(path * [1, s, 1], 1.3 * thick, 0.75 * thick, 16, 4.0), 0.3 * opening, 0.3)
    pieces = (*jaws, _pivot(rng, 4.0), *long_shaft(rng, float(rng.choice([2.5, 5.0])), -1.0, True))
    return InstrumentMesh("clip applier", pieces, length)


def _needle_driver(rng: Rng, opening: float) -> InstrumentMesh:
    length, bend = rng.uniform(9, 17), rng.uniform(-0.1, 0.25)
    jaws = _pair(lambda s: _blade(rng, length, 1.8, 1.1, bend, 0.6, True), 0.5 * opening, 1.1)
    return InstrumentMesh("needle driver", (*jaws, _pivot(rng, 2.5), *long_shaft(rng, 2.5, -1.0, True)), length)


def _plates(length: float, width: float, gap: float) -> Mesh:
    """Return one plate of a clevis along z with a round end; the other is its mirror image."""
    u = np.linspace(0, 1, 16)
    end = np.sqrt(np.clip(1 - ((u - 0.7) / 0.3) ** 2, 0.02, 1))
    path = np.stack([0 * u, gap + 0 * u, u * length], 1)
    return sweep(path, width * np.where(u > 0.7, end, 1), 0.22 * width, 16, 4.0)


def clevis_mesh(length: float, radius: float, slot: str, turn: float) -> list[Piece]:
    """Return a fork of two plates and the pin through its end, as the wrist of a robotic instrument has."""
    base = tube(radius * 0.97, -0.25 * length, 0.12 * length)
    plate = _plates(length * 1.25, radius * 0.8, radius * 0.66)
    pin = rod(1.9 * radius, 0.22 * radius).moved(translation(0, 0, length) @ rotation(np.pi / 2, [0, 0, 1]))
    meshes = [base, plate, plate.moved(rotation(np.pi, [0, 0, 1])), pin]
    return [Piece(mesh.moved(rotation(turn, [0, 0, 1])), WRIST_PART, slot) for mesh in meshes]


def _moved(pieces: list[Piece], matrix: Array) -> list[Piece]:
    return [Piece(piece.mesh.moved(matrix), piece.part, piece.slot) for piece in pieces]


def _robotic(rng: Rng, opening: float) -> InstrumentMesh:
    """A da Vinci-like instrument: an 8 mm shaft, two clevises across each other, and jaws."""
    pitch, yaw, length = rng.normal(0, 0.5), rng.normal(0, 0.45), rng.uniform(9, 22)
    first, second = rng.uniform(8, 11), rng.uniform(7, 10)
    bend, point = rng.uniform(-0.1, 0.3), rng.uniform(0.3, 0.9)
    wide, thick, teeth = rng.uniform(1.5, 2.6), rng.uniform(0.6, 1.1), rng.random() < 0.4
    if rng.random() < 0.35:
        jaws = _pair(lambda s: _loop(length, wide * 1.2, 0.8 * thick, bend), opening, thick)
    else:
        jaws = _pair(lambda s: _blade(rng, length, wide, thick, bend, point, teeth), opening, thick)
    jaws.append(Piece(rod(5.2, 2.2), TIP_PART, "tip"))
    bent = translation(0, 0, first) @ rotation(pitch, [0, 1, 0])
    jaw_frame = bent @ translation(0, 0, second) @ rotation(yaw, [1, 0, 0])
    pieces = [Piece(tube(4.1, -LENGTH, 0.0), SHAFT_PART, "shaft"), *clevis_mesh(first, 4.0, "clevis", 0.0)]
    pieces += _moved(clevis_mesh(second, 3.3, "wrist", np.pi / 2), bent)
    return InstrumentMesh("robotic", (*pieces, *_moved(jaws, jaw_frame)), first + second + length, True)


MAKERS: Mapping[str, Callable[[Rng, float], InstrumentMesh]] = {
    "grasper": _grasper,
    "dissector": _dissector,
    "scissors": _scissors,
    "hook": _hook,
    "suction": _suction,
    "stapler": _stapler,
    "clip applier": _clip_applier,
    "needle driver": _needle_driver,
    "robotic": _robotic,
}
_SHARES = (0.24, 0.12, 0.09, 0.11, 0.09, 0.06, 0.07, 0.06, 0.16)


def draw_kind(rng: Rng) -> str:
    """Draw which procedural instrument to build."""
    return list(MAKERS)[rng.choice(len(MAKERS), p=_SHARES)]


def draw_opening(rng: Rng) -> float:
    """Draw how far each jaw is from the axis, in radians: shut, nearly shut or open."""
    return float(rng.choice([0.0, rng.uniform(0, 0.15), rng.uniform(0.1, 0.6)], p=[0.35, 0.25, 0.4]))


def build_instrument(kind: str, seed: int, opening: float) -> InstrumentMesh:
    """Build the instrument of a kind that a seed determines; another opening leaves all else as it is."""
    return MAKERS[kind](np.random.default_rng(seed), opening)
