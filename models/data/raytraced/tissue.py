"""Shape of tissue: a folded wall, organs sunk into it, and strips of fascia, ducts and vessels along it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cliprl.models.data.raytraced.geometry import Array, Mesh, Rng, grid_faces, rotation, sphere, sweep, vertex_normals
from cliprl.models.data.raytraced.textures import noise

# Vertices along a side of the wall.
GRID = 144
_SPHERE = sphere()


@dataclass(slots=True)
class Wall:
    """A height field in front of the camera, which looks along +z: depths (GRID, GRID) over square `axis` x `axis`, in mm.

    `half` is half the width that the camera sees at the mean depth, `mean`.
    """

    axis: Array
    depth: Array
    half: float
    mean: float

    def at(self, x: ArrayLike, y: ArrayLike) -> Array:
        """Return the depth at points of any shape, interpolated between vertices; beyond the edge, that of the edge."""
        step, last = self.axis[1] - self.axis[0], GRID - 1
        column = np.clip((np.asarray(x, float) - self.axis[0]) / step, 0, last - 1e-6)
        row = np.clip((np.asarray(y, float) - self.axis[0]) / step, 0, last - 1e-6)
        i, j = row.astype(int), column.astype(int)
        v, u = row - i, column - j
        upper = self.depth[i, j] * (1 - u) + self.depth[i, j + 1] * u
        lower = self.depth[i + 1, j] * (1 - u) + self.depth[i + 1, j + 1] * u
        return np.asarray(upper * (1 - v) + lower * v)

    def press(self, x: float, y: float, depth: float, radius: float) -> None:
        """Push the wall away from the camera around a point, or with a negative `depth` pull it up to a peak."""
        grid_x, grid_y = np.meshgrid(self.axis, self.axis)
        distance = np.hypot(grid_x - x, grid_y - y) / radius
        # A push leaves a round dent, a pull a tent with straight sides.
        self.depth += depth * (np.exp(-0.5 * distance**2) if depth > 0 else np.exp(-1.2 * distance))

    def mesh(self, uv_scale: float, uv_turn: float, uv_shift: Array) -> Mesh:
        """Return the wall as a mesh. Texture coordinates follow the surface, so that slopes are not stretched."""
        x, y = np.meshgrid(self.axis, self.axis)
        vertices = np.stack([x.ravel(), y.ravel(), self.depth.ravel()], 1)
        faces = grid_faces(GRID, GRID)
        uv = np.stack([_arc(self.depth, self.axis, 1), _arc(self.depth, self.axis, 0)], -1).reshape(-1, 2)
        return Mesh(vertices, faces, vertex_normals(vertices, faces), placed_uv(uv, uv_scale, uv_turn, uv_shift))


def _arc(depth: Array, axis: Array, along: int) -> Array:
    """Return the length of the way over the surface from the middle, along rows or columns."""
    step = np.diff(depth, axis=along)
    length = np.sqrt(step**2 + (axis[1] - axis[0]) ** 2)
    # The mean over neighboring rows keeps texture from shearing at single bumps.
    total = np.cumsum(0.5 * length + 0.5 * length.mean(1 - along, keepdims=True), axis=along)
    total = np.insert(total, 0, 0, axis=along)
    return np.asarray(total - np.take(total, [GRID // 2], axis=along))


def placed_uv(uv: Array, scale: float, turn: float, shift: Array) -> Array:
    """Return texture coordinates: millimetres times `scale`, turned, with the texture's middle at `shift`."""
    c, s = np.cos(turn), np.sin(turn)
    return np.asarray(uv @ np.array([[c, s], [-s, c]]) * scale + 0.5 + shift)


def draw_uv(rng: Rng, half: float, span: tuple[float, float] = (0.5, 0.95)) -> tuple[float, float, Array]:
    """Draw scale, turn and shift of a texture: what the camera sees is about `span` of its side, so that no seam shows."""
    low, high = np.log(span)
    return float(np.exp(rng.uniform(low, high)) / (2 * half)), rng.uniform(0, 2 * np.pi), rng.uniform(-0.06, 0.06, 2)


def draw_wall(rng: Rng, half: float, mean: float) -> Wall:
    """Draw a wall: tilted, hollow or bulging, with folds and, in half of the scenes, a step to another depth."""
    side = half * 2.6
    axis = np.linspace(-side, side, GRID)
    x, y = np.meshgrid(axis, axis)
    coarse = noise(rng, GRID, [int(rng.integers(3, 6)), 8, 14])
    fine = noise(rng, GRID, [24, 48], 0.6)
    height = mean * rng.uniform(0.02, 0.17)
    tilt = rng.normal(0, 0.28, 2)
    hollow = rng.uniform(-0.25, 0.9) * mean / side**2 * float(rng.random() < 0.75)
    depth = mean + height * (coarse + 0.06 * fine) + tilt[0] * x + tilt[1] * y - hollow * (x**2 + y**2)
    if rng.random() < 0.35:
        depth = depth - _folds(rng, x, y, half) * mean * rng.uniform(0.02, 0.09)
    if rng.random() < 0.5:
        step = noise(rng, GRID, [2, 5, 9])
        depth = depth + mean * rng.uniform(0.1, 1.3) / (
            1 + np.exp(-(step - rng.uniform(-0.2, 0.8)) * rng.uniform(2, 10))
        )
    return Wall(axis, np.maximum(depth, 0.35 * mean).astype(float), half, mean)


def _folds(rng: Rng, x: Array, y: Array, half: float) -> Array:
    """Return parallel ridges with sharp creases in 0..1, as bowel and stomach have."""
    turn, period = rng.uniform(0, np.pi), half * rng.uniform(0.25, 0.9)
    bend = noise(rng, GRID, [3, 6]) * rng.uniform(0.1, 0.5)
    phase = (np.cos(turn) * x + np.sin(turn) * y) / period + bend
    return np.asarray(np.abs(np.sin(np.pi * phase)) ** rng.uniform(0.5, 1.2))


def draw_organ(rng: Rng, wall: Wall) -> Mesh:
    """Draw a rounded organ that is sunk into the wall by more than a third, so that it doesn't float."""
    half = wall.half
    size = half * np.exp(rng.uniform(np.log(0.25), np.log(1.0), 3))
    turn = rotation(rng.uniform(0, 2 * np.pi), rng.normal(0, 1, 3))[:3, :3]
    bumps = sum(
        rng.normal(0, 0.05) * np.sin(_SPHERE.vertices @ rng.normal(0, 3, 3) + rng.uniform(0, 6)) for _ in range(6)
    )
    offset = (_SPHERE.vertices * (1 + np.asarray(bumps)[:, None]) * size) @ turn.T
    x, y = rng.uniform(-1.1, 1.1) * half, rng.uniform(-0.9, 0.9) * half
    toward = -offset[:, 2].min()
    # The wall is lowest somewhere around the organ: take the nearest depth under its outline.
    rim = offset[np.argsort(np.abs(offset[:, 2]))[:24], :2] + np.array([x, y])
    depth = float(np.median(wall.at(rim[:, 0], rim[:, 1]))) + toward * rng.uniform(-0.15, 0.65)
    vertices = offset + np.array([x, y, depth])
    vertices[:, 2] = np.maximum(vertices[:, 2], 12)
    normals = vertex_normals(vertices, _SPHERE.faces)
    # Azimuthal equidistant around the point nearest to the camera: neither stretched nor squeezed at the outline.
    flat = offset[:, :2]
    slope = np.arccos(np.clip(-offset[:, 2] / (np.linalg.norm(offset, axis=1) + 1e-9), -1, 1))
    uv = flat * (slope / np.maximum(np.sin(slope), 0.35))[:, None]
    return Mesh(vertices, _SPHERE.faces, normals, placed_uv(uv, *draw_uv(rng, half, (0.7, 1.4))))


def draw_strip(rng: Rng, wall: Wall) -> tuple[Mesh, Array, float]:
    """Draw a long strip of tissue on the wall or free above it. Return its mesh, its path (K, 3) and its half width."""
    half, count = wall.half, int(rng.integers(14, 26))
    length, turn = half * rng.uniform(0.7, 2.6), rng.uniform(0, 2 * np.pi)
    x0, y0 = rng.uniform(-0.8, 0.8) * half, rng.uniform(-0.7, 0.7) * half
    u = np.linspace(-0.5, 0.5, count)
    bend = rng.normal(0, 0.25) * length * (4 * u * u - 0.5)
    wave = length * 0.03 * np.sin(u * rng.uniform(3, 12) + rng.uniform(0, 6))
    x = x0 + np.cos(turn) * u * length - np.sin(turn) * (bend + wave)
    y = y0 + np.sin(turn) * u * length + np.cos(turn) * bend
    width = half * np.exp(rng.uniform(np.log(0.015), np.log(0.14)))
    shape = width * (1 + 0.35 * np.interp(u, np.linspace(-0.5, 0.5, 5), rng.normal(0, 1, 5))).clip(0.35, 2)
    flat = rng.uniform(0.25, 1.0)
    z = np.convolve(np.pad(wall.at(x, y), 2, "edge"), np.ones(5) / 5, "valid") - width * flat * rng.uniform(0.1, 0.9)
    if rng.random() < 0.3:
        z = np.minimum(np.linspace(z[0], z[-1], count) - half * 0.1 * (1 - 4 * u * u), z)
    path = np.stack([x, y, np.maximum(z, 14)], 1)
    mesh = sweep(path, shape, shape * flat, 16)
    uv = placed_uv(mesh.uv, *draw_uv(rng, half, (0.7, 1.4)))
    return Mesh(mesh.vertices, mesh.faces, mesh.normals, uv), path, float(width)
