"""Triangle meshes of instruments and tissue: sweeps, tubes, rigid transforms and smooth normals. Lengths are millimetres."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Mesh:
    """Vertices float64 (N, 3), faces int64 (M, 3), unit normals float64 (N, 3) and texture coordinates float64 (N, 2)."""

    vertices: Array
    faces: NDArray[np.int64]
    normals: Array
    uv: Array

    def moved(self, matrix: Array) -> Mesh:
        """Apply a rigid transform (4, 4)."""
        rotation = matrix[:3, :3]
        return replace(self, vertices=self.vertices @ rotation.T + matrix[:3, 3], normals=self.normals @ rotation.T)

    def scaled(self, factor: float) -> Mesh:
        """Scale about the origin by a positive factor."""
        return replace(self, vertices=self.vertices * factor)


def translation(x: float, y: float, z: float) -> Array:
    """Return the transform (4, 4) that moves by x, y, z."""
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def rotation(angle: float, axis: ArrayLike) -> Array:
    """Return the transform (4, 4) that turns by `angle` radians about `axis` (3,) through the origin."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return matrix


def frame_towards(direction: Array) -> Array:
    """Return a rotation (3, 3) whose third column is `direction` (3,)."""
    z = direction / np.linalg.norm(direction)
    x = np.cross([0.3, 0.2, 1.0] if abs(z[2]) < 0.9 else [1.0, 0.2, 0.3], z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)


def vertex_normals(vertices: Array, faces: NDArray[np.int64]) -> Array:
    """Return unit normals (N, 3): the mean of the adjacent faces' normals, weighted by area."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros_like(vertices)
    for corner in range(3):
        for axis in range(3):
            total[:, axis] += np.bincount(faces[:, corner], normals[:, axis], len(vertices))
    return np.asarray(total / (np.linalg.norm(total, axis=1, keepdims=True) + 1e-12))


def grid_faces(rows: int, columns: int) -> NDArray[np.int64]:
    """Return the two triangles of each cell of a grid of vertices in row order: (2 (rows-1) (columns-1), 3)."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    upper = np.stack([corner, corner + columns, corner + 1], 1)
    lower = np.stack([corner + 1, corner + columns, corner + columns + 1], 1)
    return np.concatenate([upper, lower]).astype(np.int64)


def _frames_along(path: Array) -> tuple[Array, Array]:
    """Return two unit vectors (K, 3) each across the path, turned as little as possible from point to point."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True) + 1e-12
    across = np.array([1.0, 0.0, 0.0]) if abs(tangent[0, 0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    first, second = np.empty_like(path), np.empty_like(path)
    for i, direction in enumerate(tangent):
        across = across - direction * (across @ direction)
        across = across / (np.linalg.norm(across) + 1e-12)
        first[i], second[i] = across, np.cross(direction, across)
    return first, second


def sweep(
    path: ArrayLike, width: ArrayLike, thickness: ArrayLike, sides: int = 20, exponent: float = 2.0, bore: float = 0.0
) -> Mesh:
    """Sweep a superellipse along a path (K, 3) and close both ends.

    `width` and `thickness` (K,) are half extents across the path; exponent 2 is an ellipse, higher is squarer. With
    `bore` in 0..1 the far end has a hole of that share of its radius, as a suction tube has.
    """
    points = np.asarray(path, float)
    first, second = _frames_along(points)
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    c, s, power = np.cos(angle), np.sin(angle), 2 / exponent
    round_x, round_y = np.sign(c) * np.abs(c) ** power, np.sign(s) * np.abs(s) ** power
    wide = np.broadcast_to(np.asarray(width, float), len(points))[:, None, None]
    thick = np.broadcast_to(np.asarray(thickness, float), len(points))[:, None, None]
    rings = points[:, None] + round_x[:, None] * wide * first[:, None] + round_y[:, None] * thick * second[:, None]
    rows = [*_cap(rings[0], points[0])[::-1], *rings, *_end(rings, points, bore)]
    length = np.concatenate([[0, 0], np.cumsum(np.r_[0, np.linalg.norm(np.diff(points, axis=0), axis=1)])])
    return _closed(np.array(rows), angle, np.pad(length, (0, len(rows) - len(length)), mode="edge"), float(wide.max()))


def _cap(ring: Array, center: Array) -> list[Array]:
    """Return the ring once more, for a sharp edge, and its center."""
    return [ring, np.repeat(center[None], len(ring), 0)]


def _end(rings: Array, points: Array, bore: float) -> list[Array]:
    if not bore:
        return _cap(rings[-1], points[-1])
    inner = points[-1] + (rings[-1] - points[-1]) * bore
    back = points[-1] - points[-2]
    deep = 6 * np.linalg.norm(rings[-1][0] - points[-1]) * back / np.linalg.norm(back)
    return [rings[-1], inner, inner, *_cap(inner - deep, points[-1] - deep)]


def _closed(rows: Array, angle: Array, length: Array, radius: float) -> Mesh:
    """Return a mesh of rings of vertices; normals are the same on both sides of the seam where a ring closes."""
    count, sides = rows.shape[:2]
    vertices, faces = rows.reshape(-1, 3), grid_faces(count, sides)
    normals = vertex_normals(vertices, faces).reshape(count, sides, 3)
    seam = normals[:, 0] + normals[:, -1]
    normals[:, 0] = normals[:, -1] = seam / (np.linalg.norm(seam, axis=1, keepdims=True) + 1e-12)
    uv = np.stack(np.broadcast_arrays(angle[None] * radius, length[:, None]), -1)
    # A sweep is wound against its path's direction: turn faces and normals to the outside.
    return Mesh(vertices, faces[:, ::-1].copy(), -normals.reshape(-1, 3), uv.reshape(-1, 2).astype(float))


def tube(radius: float, start: float, stop: float, sides: int = 28) -> Mesh:
    """Return a cylinder along z from `start` to `stop`, its far rim rounded."""
    z = np.array([start, start + 1e-3, stop - 0.3 * radius, stop - 0.1 * radius, stop])
    width = radius * np.array([1, 1, 1, 0.96, 0.85])
    return sweep(np.stack([0 * z, 0 * z, z], 1), width, width, sides)


def rod(length: float, radius: float, sides: int = 20) -> Mesh:
    """Return a pin across the instrument: a cylinder along x, centered at the origin."""
    return tube(radius, -length / 2, length / 2, sides).moved(rotation(np.pi / 2, [0, 1, 0]))


def sphere() -> Mesh:
    """Return the unit sphere with its first pole at -z, where the camera is."""
    rings, sides = 40, 56
    polar, turn = np.linspace(1e-3, np.pi - 1e-3, rings), np.linspace(0, 2 * np.pi, sides)
    p, t = np.meshgrid(polar, turn, indexing="ij")
    points = np.stack([np.sin(p) * np.cos(t), np.sin(p) * np.sin(t), -np.cos(p)], -1).reshape(-1, 3)
    uv = np.stack([p * np.cos(t), p * np.sin(t)], -1).reshape(-1, 2)
    faces = grid_faces(rings, sides)[:, ::-1].copy()
    return Mesh(points, faces, points.copy(), uv)
