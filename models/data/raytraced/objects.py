"""Small objects and distractors: clips, thread and needles under their own labels; gauze and gloved fingers under none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cliprl.models.data.raytraced.geometry import (
    Array,
    Mesh,
    Rng,
    frame_towards,
    grid_faces,
    rotation,
    sweep,
    translation,
    vertex_normals,
)
from cliprl.models.data.raytraced.materials import Material, material, steel
from cliprl.models.data.raytraced.textures import Tissue, noise, woven
from cliprl.models.data.raytraced.tissue import Wall

# Labels of what is no instrument. Distractors are labeled NONE, as tissue is.
NO_LABEL, CLIP_LABEL, THREAD_LABEL, NEEDLE_LABEL = 0, 4, 5, 6


@dataclass(frozen=True, slots=True)
class Placed:
    """A mesh in the camera's space, its surface, its label, and the number of its instrument (0: of none)."""

    mesh: Mesh
    surface: Material | Tissue
    label: int = NO_LABEL
    instance: int = 0


def clips(rng: Rng, path: Array, width: float) -> list[Placed]:
    """Draw one to four clips across a duct with the given path (K, 3) and half width."""
    plastic = rng.random() < 0.4
    colors = [[0.35, 0.12, 0.45], [0.8, 0.8, 0.78], [0.1, 0.4, 0.2], [0.05, 0.2, 0.6]]
    surface = material(colors[rng.integers(4)], 0, 0.35, 0.5, 0.3) if plastic else steel(rng)
    wire = rng.uniform(0.5, 0.9) * (1.4 if plastic else 1.0)
    start, gap, placed = int(rng.integers(2, len(path) - 6)), rng.uniform(1.6, 5.0), []
    tangent = path[start + 1] - path[start]
    tangent /= np.linalg.norm(tangent)
    across = np.cross(tangent, [0, 0, 1.0])
    across /= np.linalg.norm(across) + 1e-9
    reach, high = np.clip(width * rng.uniform(1.0, 1.5), 2, 5), np.clip(width * rng.uniform(0.5, 1.0), 1, 2.5)
    turn = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 9)
    loop = np.concatenate(
        [[[reach, -high]], np.stack([-reach + high * (np.cos(turn) - 1), high * np.sin(turn)], 1), [[reach, high]]]
    )
    for number in range(int(rng.integers(1, 5))):
        at = path[start] + tangent * gap * number
        points = at + loop[:, :1] * across + loop[:, 1:] * np.array([0, 0, 1.0])
        placed.append(Placed(sweep(points, 1.5 * wire, wire, 10, 4.0), surface, CLIP_LABEL))
    return placed


def _on_wall(wall: Wall, x: Array, y: Array, above: Array | float) -> Array:
    return np.stack([x, y, np.maximum(wall.at(x, y) - above, 14)], 1)


def thread(rng: Rng, wall: Wall, start: Sequence[float] | None = None) -> Placed:
    """Draw a suture that winds over the wall, or down to it from a point `start` (3,)."""
    count, half = 90, wall.half
    turn = np.cumsum(rng.normal(0, 0.25) / 6 + np.cumsum(rng.normal(0, 0.02, count))) + rng.uniform(0, 6)
    step = half * rng.uniform(0.5, 2.0) / count
    x, y = np.cumsum(np.cos(turn)) * step, np.cumsum(np.sin(turn)) * step
    origin = np.asarray(start[:2] if start is not None else rng.uniform(-0.7, 0.7, 2) * half)
    radius = rng.uniform(0.16, 0.42)
    lift = np.abs(np.interp(np.arange(count), np.linspace(0, count, 8), rng.normal(0, 1.2, 8))) + radius
    path = _on_wall(wall, x - x[0] + origin[0], y - y[0] + origin[1], lift)
    if start is not None:
        path[:, 2] += (start[2] - path[0, 2]) * np.exp(-np.arange(count) / 12)
    colors = [
        [0.12, 0.02, 0.2],
        [0.02, 0.05, 0.3],
        [0.01, 0.01, 0.012],
        [0.7, 0.7, 0.66],
        [0.03, 0.25, 0.12],
        [0.3, 0.25, 0.05],
    ]
    surface = material(colors[rng.choice(6, p=[0.28, 0.2, 0.24, 0.14, 0.08, 0.06])], 0, 0.45, 0.4, 0.1)
    return Placed(sweep(path, radius, radius, 8), surface, THREAD_LABEL)


def needle_mesh(rng: Rng, at: Sequence[float]) -> Placed:
    """Draw a curved suturing needle whose middle is at a point (3,)."""
    radius, arc = rng.uniform(5.0, 10.0), rng.uniform(0.45, 0.65) * 2 * np.pi
    turn = np.linspace(0, arc, 30)
    path = np.stack([radius * np.cos(turn - arc / 2) - radius, radius * np.sin(turn - arc / 2), 0 * turn], 1)
    wire = rng.uniform(0.3, 0.5) * np.clip((arc - turn) / 0.5, 0.15, 1)
    tilt = rotation(rng.uniform(0, 2 * np.pi), [0, 0, 1]) @ rotation(rng.normal(0, 0.6), [1, 0, 0])
    mesh = sweep(path, wire, wire, 10).moved(translation(at[0], at[1], at[2]) @ tilt)
    return Placed(mesh, steel(rng), NEEDLE_LABEL)


def gauze(rng: Rng, wall: Wall) -> Placed:
    """Draw a crumpled swab that lies on the wall."""
    count, half = 60, wall.half
    size = half * rng.uniform(0.35, 1.0) * np.array([1, rng.uniform(0.5, 1)])
    v, u = np.meshgrid(np.linspace(-1, 1, count), np.linspace(-1, 1, count), indexing="ij")
    edge = 1 + 0.1 * noise(rng, count, [4, 9])
    turn, x0, y0 = rng.uniform(0, 2 * np.pi), *(rng.uniform(-0.8, 0.8, 2) * half)
    a, b = u * size[0] * edge, v * size[1] * edge
    x, y = np.cos(turn) * a - np.sin(turn) * b + x0, np.sin(turn) * a + np.cos(turn) * b + y0
    wrinkles = np.abs(noise(rng, count, [4, 8, 16], 0.6)) * half * rng.uniform(0.01, 0.06)
    vertices = _on_wall(wall, x.ravel(), y.ravel(), wrinkles.ravel() + 0.012 * half)
    faces = grid_faces(count, count)
    normals = vertex_normals(vertices, faces)
    uv = np.stack([u.ravel(), v.ravel()], 1) * 0.45 + 0.5
    return Placed(Mesh(vertices, faces, normals, uv), woven(rng))


def finger(rng: Rng, wall: Wall) -> list[Placed]:
    """Draw one to three gloved fingers that reach in from the edge."""
    colors = [[0.75, 0.62, 0.42], [0.1, 0.3, 0.6], [0.05, 0.35, 0.2], [0.8, 0.78, 0.74], [0.3, 0.2, 0.5]]
    surface = material(
        np.array(colors[rng.integers(5)]) * np.exp(rng.normal(0, 0.1, 3)), 0, rng.uniform(0.3, 0.6), 0.4, 0.2
    )
    turn, half = rng.uniform(0, 2 * np.pi), wall.half
    radius = float(np.clip(half * rng.uniform(0.12, 0.3), 5, 11))
    placed = []
    for number in range(int(rng.integers(1, 4))):
        side = (number - 1) * 2.2 * radius
        direction = np.array([np.cos(turn), np.sin(turn), -rng.uniform(0.1, 0.6)])
        tip = np.array([np.cos(turn), np.sin(turn), 0]) * half * rng.uniform(0.35, 0.8)
        tip += np.array([-np.sin(turn), np.cos(turn), 0]) * side
        tip[2] = float(wall.at(tip[0], tip[1])) - radius * rng.uniform(0.6, 2.0)
        u = np.linspace(0, 1, 30)
        shape = (
            radius
            * np.sqrt(np.clip(1 - np.clip(1 - u / 0.06, 0, 1) ** 2, 0.01, 1))
            * (1 + 0.06 * np.sin(u * 26) + 0.25 * u)
        )
        path = np.stack([0 * u, 0.12 * half * u**2, u * 2.2 * half], 1) @ frame_towards(direction).T + tip
        path[:, 2] = np.maximum(path[:, 2], 8)
        placed.append(Placed(sweep(path, shape, shape, 24), surface))
    return placed
