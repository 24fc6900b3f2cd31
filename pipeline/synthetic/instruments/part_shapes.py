"""The outlines of instrument parts, each with random proportions."""

from __future__ import annotations

import numpy as np

from cliprl.pipeline.synthetic.instruments.sprites import Outline, Points, ellipse, ribbon

Rng = np.random.Generator


def _line(length: float, bend: float = 0.0, count: int = 12) -> Points:
    x = np.linspace(0, length, count)
    return np.stack([x, bend * (x / length) ** 2 * length], 1)


def sleeve(rng: Rng) -> Outline:
    """The metal collar at the end of a shaft, with rings around it."""
    length = rng.uniform(0.3, 1.4)
    widths = np.full(12, 0.5) * np.interp(np.linspace(0, 1, 12), [0, 1], [1, rng.uniform(0.8, 1.02)])
    rings = [np.array([[x, -0.5], [x, 0.5]]) for x in rng.uniform(0, length, int(rng.integers(0, 4)))]
    return Outline([ribbon(_line(length), widths)], grooves=rings, barrel=True)


def clevis(rng: Rng) -> Outline:
    """A wrist: a fork with pins, pulleys and slots."""
    length = rng.uniform(0.7, 1.8)
    knots = [rng.uniform(0.4, 0.5), rng.uniform(0.42, 0.56), rng.uniform(0.3, 0.5), rng.uniform(0.22, 0.45)]
    widths = np.interp(np.linspace(0, 1, 12), [0, 0.35, 0.7, 1], knots)
    body = ribbon(_line(length), widths)
    pins = [
        (rng.uniform(0.1, 1) * length, rng.uniform(-0.3, 0.3), rng.uniform(0.06, 0.2))
        for _ in range(rng.integers(1, 5))
    ]
    slots = []
    for _ in range(int(rng.integers(1, 5))):
        x, y = rng.uniform(0, length), rng.uniform(-0.35, 0.35)
        slots.append(np.array([[x, y], [x + rng.uniform(0.1, 0.6), y + rng.normal(0, 0.1)]]))
    holes = [ellipse(rng.uniform(0.5, 0.9) * length, 0, rng.uniform(0.06, 0.25), 0.06)] if rng.random() < 0.3 else []
    return Outline(
        [body, ellipse(length, 0, knots[-1], knots[-1])], holes, slots, pins, rng.uniform(0.1, 0.35), rng.random() < 0.5
    )


def jaw(rng: Rng, style: str) -> Outline:
    """The upper half of a pair of jaws (y > 0), from its pivot at (0, 0). `style` is one of JAWS."""
    length, width, bend, tip = _JAWS[style]
    reach, half = rng.uniform(*length), rng.uniform(*width)
    line = _line(reach, rng.uniform(*bend))
    share = np.linspace(0, 1, len(line))
    widths = half * np.interp(share, [0, 0.25, 0.8, 1], [1, 1, 0.5 + 0.5 * tip, tip])
    line[:, 1] += widths * rng.uniform(0.6, 1.0)
    holes, grooves = [], []
    if style in ("fenestrated", "grasper") and rng.random() < 0.7:
        holes.append(ribbon(line[4:10], widths[4:10] * rng.uniform(0.25, 0.5)))
    if rng.random() < 0.6:
        for at in np.linspace(0.3, 0.95, int(rng.integers(4, 14))) * (len(line) - 1):
            x, y = line[int(at)] + np.array([(at % 1) * reach / 11, 0])
            grooves.append(np.array([[x, y - half * 1.1], [x, y - half * rng.uniform(0.1, 0.5)]]))
    return Outline(
        [ribbon(line, widths)],
        holes,
        grooves,
        [(0.1, half * 0.5, rng.uniform(0.05, 0.16))],
        rng.uniform(0.08, 0.3),
        rng.random() < 0.3,
    )


# length, half width, bend (of the length), tip's width (of the half width)
_JAWS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float], float]] = {
    "grasper": ((1.2, 3.0), (0.14, 0.28), (-0.03, 0.05), 0.5),
    "fenestrated": ((1.8, 4.0), (0.18, 0.32), (-0.02, 0.03), 0.8),
    "maryland": ((1.3, 2.8), (0.12, 0.24), (0.1, 0.35), 0.25),
    "scissors": ((1.0, 2.4), (0.12, 0.26), (0.0, 0.3), 0.05),
    "needle driver": ((0.7, 1.5), (0.2, 0.3), (-0.02, 0.02), 0.6),
    "sealer": ((1.5, 3.2), (0.2, 0.36), (0.0, 0.2), 0.75),
    "clip applier": ((1.0, 2.2), (0.12, 0.25), (-0.08, 0.0), 0.9),
    "stapler": ((3.0, 6.0), (0.3, 0.48), (0.0, 0.02), 0.85),
}
JAWS = tuple(_JAWS)


def hook(rng: Rng) -> Outline:
    """An L- or J-shaped electrode."""
    stem, foot, thick = rng.uniform(0.8, 2.5), rng.uniform(0.4, 1.1), rng.uniform(0.07, 0.16)
    curl = rng.uniform(0.6, 1.7)
    turn = np.linspace(0, curl, 8)
    radius = 0.3
    arc = np.stack([stem + radius * np.sin(turn), radius * (1 - np.cos(turn))], 1)
    end = arc[-1] + foot * np.array([np.cos(curl), np.sin(curl)])
    line = np.concatenate([[[0.0, 0.0]], arc, [end]])
    return Outline([ribbon(line, np.full(len(line), thick))], bevel=thick)


def blade(rng: Rng) -> Outline:
    """A spatula, knife or plain point."""
    reach, half = rng.uniform(0.6, 3.0), rng.uniform(0.12, 0.5)
    profile = np.interp(
        np.linspace(0, 1, 12), [0, 0.4, 0.9, 1], [half, half, half * rng.uniform(0.2, 1), half * rng.uniform(0, 0.5)]
    )
    return Outline(
        [ribbon(_line(reach, rng.uniform(-0.15, 0.15)), profile)],
        bevel=rng.uniform(0.05, 0.4),
        barrel=rng.random() < 0.4,
    )


def round_end(rng: Rng, holes: bool) -> Outline:
    """The rounded end of a tube, with or without suction holes."""
    length = rng.uniform(0.8, 3.0) if holes else rng.uniform(0.05, 0.4)
    body = ribbon(_line(length), np.full(12, 0.5))
    cap = ellipse(length, 0, rng.uniform(0.1, 0.5), 0.5)
    spots = np.linspace(0.2, length * 0.95, int(rng.integers(2, 6)) if holes else 0)
    pits = [(float(x), float(rng.choice([-0.2, 0.0, 0.2])), rng.uniform(0.07, 0.14)) for x in spots]
    return Outline([body, cap], pits=pits, barrel=True)


def ultrasound_probe(rng: Rng) -> Outline:
    """An ultrasound transducer: a rounded block with a fin."""
    length, half = rng.uniform(1.8, 4.0), rng.uniform(0.45, 0.75)
    share = np.linspace(0, 1, 16)
    widths = half * np.interp(share, [0, 0.12, 0.85, 1], [rng.uniform(0.4, 0.8), 1, 1, rng.uniform(0.3, 0.8)])
    line = np.stack([share * length, np.zeros(16)], 1)
    fin = ribbon(_line(length * 0.4) + np.array([length * 0.3, half]), np.full(12, rng.uniform(0.1, 0.25)))
    window = np.array([[length * 0.2, -half * 0.5], [length * 0.95, -half * 0.5]])
    bodies = [ribbon(line, widths), fin] if rng.random() < 0.5 else [ribbon(line, widths)]
    return Outline(bodies, grooves=[window], bevel=rng.uniform(0.2, 0.5))


def clamp(rng: Rng) -> Outline:
    """A bulldog clamp or polymer clip: two arms from one spring."""
    length, spread, thick = rng.uniform(2.0, 4.0), rng.uniform(0.1, 0.5), rng.uniform(0.15, 0.3)
    arms = []
    for side in (-1, 1):
        line = _line(length, side * rng.uniform(-0.05, 0.08))
        line[:, 1] += side * np.interp(np.linspace(0, 1, 12), [0, 0.3, 1], [0, spread, spread * 0.5])
        arms.append(ribbon(line, thick * np.interp(np.linspace(0, 1, 12), [0, 1], [1, 0.7])))
    return Outline([*arms, ellipse(0, 0, 0.45, 0.5)], pins=[(0, 0, 0.2)], bevel=0.2)


def needle(rng: Rng) -> Outline:
    """A curved suturing needle: part of a circle of radius 1.5, pointed at one end."""
    turn = np.linspace(0, rng.uniform(2.0, 3.4), 24)
    line = 1.5 * np.stack([np.sin(turn), 1 - np.cos(turn)], 1)
    return Outline([ribbon(line, np.linspace(0.09, 0.02, 24))], bevel=0.15)
