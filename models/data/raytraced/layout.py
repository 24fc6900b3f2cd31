"""The layout of a scene: camera, lights, tissue, distractors and instruments, all drawn from the scene's seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cliprl.models.data.raytraced import instruments, objects, tissue
from cliprl.models.data.raytraced.geometry import Array, Rng, frame_towards, rotation, translation
from cliprl.models.data.raytraced.instruments import InstrumentMesh
from cliprl.models.data.raytraced.materials import Material, instrument_materials
from cliprl.models.data.raytraced.mesh_folder import MeshFolder
from cliprl.models.data.raytraced.objects import Placed
from cliprl.models.data.raytraced.textures import TISSUE_STRIPS, TextureSource
from cliprl.models.data.raytraced.tissue import Wall

# Height of a frame by its width.
ASPECT = 0.8


@dataclass(frozen=True, slots=True)
class CameraPose:
    """A camera at `origin` (3,) that looks at `target` (3,); `field_of_view` is horizontal, in degrees."""

    field_of_view: float
    origin: Array
    target: Array


@dataclass(frozen=True, slots=True)
class Light:
    """A fibre outlet beside the lens: a spot whose beam ends at `cutoff` degrees and fades from `beam` degrees on."""

    position: Array
    target: Array
    intensity: float
    cutoff: float
    beam: float


@dataclass(frozen=True, slots=True)
class Tool:
    """An instrument, where it is (4, 4), how it moves until the next frame (4, 4), and the materials of its slots.

    `meshes` names the kind in the folder of meshes; "" for a procedural one. The jaws open by `opens` radians.
    """

    kind: str
    meshes: str
    seed: int
    opening: float
    opens: float
    scale: float
    pose: Array
    motion: Array
    materials: dict[str, Material]


@dataclass(slots=True)
class Layout:
    """A scene; `still` holds all that doesn't move, and `frame` adds the instruments as they are in a frame."""

    camera: CameraPose
    moved_camera: CameraPose
    lights: tuple[Light, ...]
    surround: NDArray[np.float32]
    still: list[Placed] = field(default_factory=list)
    tools: list[Tool] = field(default_factory=list)

    def view(self, number: int) -> CameraPose:
        """Return the camera of the first (0) or second (1) frame."""
        return self.moved_camera if number else self.camera

    def instruments(self, number: int, folder: MeshFolder | None) -> list[Placed]:
        """Return the instruments' pieces in the first (0) or second (1) frame; `instance` counts instruments from 1."""
        placed = []
        for instance, tool in enumerate(self.tools, 1):
            built = make(tool, folder, tool.opening + number * tool.opens)
            pose = tool.motion @ tool.pose if number else tool.pose
            for piece in built.pieces:
                surface = tool.materials[piece.slot if piece.slot != "bore" else "ring"]
                placed.append(Placed(piece.mesh.moved(pose), surface, piece.part, instance))
        return placed


def make(tool: Tool, folder: MeshFolder | None, opening: float) -> InstrumentMesh:
    """Build a tool's meshes with its jaws at `opening`."""
    opening = float(np.clip(opening, 0, 0.8))
    if tool.meshes:
        assert folder is not None
        return folder.build(tool.meshes, np.random.default_rng(tool.seed), opening).scaled(tool.scale)
    return instruments.build_instrument(tool.kind, tool.seed, opening).scaled(tool.scale)


def draw_layout(rng: Rng, source: TextureSource, folder: MeshFolder | None = None) -> Layout:
    """Draw a scene."""
    angle = rng.uniform(52, 78)
    mean = float(np.exp(rng.uniform(np.log(32), np.log(135))))
    half = float(np.tan(np.radians(angle / 2)) * mean)
    wall = tissue.draw_wall(rng, half, mean)
    dark_rim = rng.random() < 0.3
    camera = CameraPose(angle, np.zeros(3), np.array([0, 0, mean]))
    shift, turn = rng.normal(0, 0.012, 3) * mean, rng.normal(0, 0.015, 3) * mean
    moved = replace(camera, origin=shift, target=camera.target + shift + turn)
    surround = source.crop(rng, 64, 0.6) / 255
    layout = Layout(camera, moved, _lights(rng, half, mean, dark_rim), np.asarray(surround, np.float32))
    layout.tools = _tools(rng, wall, folder, dark_rim)
    layout.still = [*_background(rng, wall, source), *_small_objects(rng, wall, layout.tools)]
    layout.still += _strips(rng, wall, source)
    return layout


def _lights(rng: Rng, half: float, mean: float, dark_rim: bool) -> tuple[Light, ...]:
    """Draw two outlets on either side of the lens, the second often dark; a narrow beam leaves the rim in the dark."""
    offset, turn = rng.uniform(1.5, 6), rng.uniform(0, 2 * np.pi)
    strengths = (1.0, float(rng.choice([0.02, rng.uniform(0.3, 1)])))
    lights = []
    for sign, strength in zip((1, -1), strengths, strict=True):
        position = np.array([sign * offset * np.cos(turn), sign * offset * np.sin(turn), -1])
        target = np.array([*(rng.normal(0, 0.15, 2) * half), mean])
        cutoff, beam = (
            (rng.uniform(22, 34), rng.uniform(6, 16)) if dark_rim else (rng.uniform(30, 60), rng.uniform(8, 25))
        )
        lights.append(Light(position, target, strength * mean**2 * 3, cutoff, beam))
    return tuple(lights)


def _background(rng: Rng, wall: Wall, source: TextureSource) -> list[Placed]:
    """Draw the wall, organs in it, and what might be taken for an instrument: swabs and gloved fingers."""
    placed = [Placed(wall.mesh(*tissue.draw_uv(rng, wall.half)), source.tissue(rng, size=512))]
    for _ in range(int(rng.choice(5, p=[0.35, 0.3, 0.2, 0.1, 0.05]))):
        placed.append(Placed(tissue.draw_organ(rng, wall), source.tissue(rng)))
    if rng.random() < 0.12:
        placed.append(objects.gauze(rng, wall))
    if rng.random() < 0.05:
        placed += objects.finger(rng, wall)
    return placed


def _strips(rng: Rng, wall: Wall, source: TextureSource) -> list[Placed]:
    """Draw strips of tissue, and clips across some of them."""
    placed = []
    for _ in range(int(rng.choice(4, p=[0.35, 0.3, 0.22, 0.13]))):
        mesh, path, width = tissue.draw_strip(rng, wall)
        placed.append(Placed(mesh, source.tissue(rng, TISSUE_STRIPS)))
        if width < 4 and rng.random() < 0.4:
            placed += objects.clips(rng, path, width)
    return placed


def _small_objects(rng: Rng, wall: Wall, tools: Sequence[Tool]) -> list[Placed]:
    """Draw thread and needles, some of them held by an instrument, and single clips."""
    placed = []
    held = [(tool.pose @ np.array([0, 0, tool.scale * 12, 1]))[:3] for tool in tools]
    if rng.random() < 0.14:
        placed.append(objects.thread(rng, wall, held[0].tolist() if held and rng.random() < 0.4 else None))
    if rng.random() < 0.08:
        x, y = rng.uniform(-0.6, 0.6, 2) * wall.half
        on_wall = (x, y, float(wall.at(x, y)) - 1.0)
        placed.append(objects.needle_mesh(rng, held[0].tolist() if held and rng.random() < 0.5 else on_wall))
    if rng.random() < 0.06:
        x, y = rng.uniform(-0.6, 0.6, 2) * wall.half
        line = np.linspace(-8, 8, 12)
        path = np.stack([x + line, y + 0.3 * line, wall.at(x + line, y + 0.3 * line) - 0.6], 1)
        placed += objects.clips(rng, path, rng.uniform(0.8, 2.0))
    return placed


def _tools(rng: Rng, wall: Wall, folder: MeshFolder | None, dark_rim: bool) -> list[Tool]:
    """Draw none to three instruments; where they touch the wall, it is pushed in or pulled up."""
    tools: list[Tool] = []
    for _ in range(int(rng.choice(4, p=[0.1, 0.36, 0.38, 0.16]))):
        tools.append(_tool(rng, wall, folder, dark_rim))
    return tools


def _tool(rng: Rng, wall: Wall, folder: MeshFolder | None, dark_rim: bool) -> Tool:
    kind, meshes = instruments.draw_kind(rng), ""
    if folder is not None and rng.random() < 0.5:
        meshes = str(rng.choice(folder.kinds))
    opening, seed = instruments.draw_opening(rng), int(rng.integers(2**31))
    scale = float(rng.choice([1.0, rng.uniform(0.9, 1.3), rng.uniform(1.6, 2.3)], p=[0.45, 0.35, 0.2]))
    draft = Tool(kind, meshes, seed, opening, rng.normal(0, 0.08), scale, np.eye(4), np.eye(4), {})
    built = make(draft, folder, opening)
    if built.robotic:
        scale = rng.uniform(0.9, 1.2)
        built = make(replace(draft, scale=scale), folder, opening)
    dark = rng.random() < (0.55 if dark_rim else 0.2)
    pose, entry, contact = _pose(rng, wall, built.reach, scale)
    if contact:
        tip = pose[:3, 3] + pose[:3, 2] * built.reach
        closed = opening < 0.15 and built.kind in ("grasper", "dissector", "robotic", "needle driver")
        lift = closed and rng.random() < 0.5
        wall.press(
            tip[0],
            tip[1],
            *((-rng.uniform(2, 10), rng.uniform(6, 16)) if lift else (rng.uniform(1, 5), rng.uniform(3, 9))),
        )
    chosen = instrument_materials(rng, built.robotic, dark)
    return replace(
        draft,
        kind=built.kind if meshes else kind,
        scale=scale,
        pose=pose,
        motion=_motion(rng, pose, entry),
        materials=chosen,
    )


def _target(rng: Rng, turn: float) -> tuple[float, float]:
    """Draw where a tip is, in half widths and half heights of the frame, for a shaft that comes in from angle `turn`."""
    mode, across = rng.random(), rng.uniform(-0.35, 0.35)
    if mode < 0.28:  # the tip lies outside of the frame, the shaft crosses it
        reach = rng.uniform(1.1, 1.6)
    elif mode < 0.78:  # a long shaft in view
        reach = rng.uniform(0.0, 0.9)
    else:  # only the end reaches into the frame
        reach = -rng.uniform(0.0, 0.75)
    c, s = np.cos(turn), np.sin(turn)
    return -c * reach - s * across, -s * reach * 0.9 + c * across


def _pose(rng: Rng, wall: Wall, reach: float, scale: float) -> tuple[Array, Array, bool]:
    """Draw where an instrument is: its pose (4, 4), where it enters the body (3,), and whether its tip touches the wall."""
    best: tuple[float, Array, Array, bool] | None = None
    for _ in range(6):
        turn = rng.uniform(0, 2 * np.pi)
        x, y = _target(rng, turn)
        at_wall = float(wall.at(x * wall.half, y * wall.half * ASPECT))
        near = min(at_wall, 1.6 * wall.mean)
        contact = rng.random() < 0.55
        depth = max(near * (rng.uniform(0.97, 1.0) if contact else rng.uniform(0.5, 0.93)), 36 * scale**0.5)
        # Along the ray through the target, so that it is seen there whatever its depth.
        tip = np.array([x * wall.half * depth / wall.mean, y * wall.half * ASPECT * depth / wall.mean, depth])
        entry = np.array([np.cos(turn), np.sin(turn), 0]) * rng.uniform(60, 170)
        entry[2] = rng.uniform(-35, 0.75 * depth)
        direction = (tip - entry) / np.linalg.norm(tip - entry)
        buried = _buried(wall, tip, direction)
        if best is None or buried < best[0]:
            pose = translation(*(tip - direction * reach))
            pose[:3, :3] = frame_towards(direction)
            best = buried, pose @ rotation(rng.uniform(0, 2 * np.pi), [0, 0, 1]), entry, contact
        if buried < 0.1:
            break
    assert best is not None
    return best[1:]


def _buried(wall: Wall, tip: Array, direction: Array) -> float:
    """Return the share of a shaft in front of the camera that is hidden by the wall."""
    points = tip - direction * np.linspace(4, 160, 40)[:, None]
    seen = points[:, 2] > 10
    hidden = wall.at(points[:, 0], points[:, 1]) < points[:, 2] - 1.0
    return float((hidden & seen).sum() / max(int(seen.sum()), 1))


def _motion(rng: Rng, pose: Array, entry: Array) -> Array:
    """Draw how an instrument moves in a ninth of a second: about the point where it enters the body, along it and around it."""
    pitch = rotation(rng.normal(0, 0.03), rng.normal(0, 1, 3) + 1e-6)
    slide = translation(*(pose[:3, 2] * rng.normal(0, 2.5)))
    roll = translation(*pose[:3, 3]) @ rotation(rng.normal(0, 0.1), pose[:3, 2]) @ translation(*-pose[:3, 3])
    return np.asarray(slide @ translation(*entry) @ pitch @ translation(*-entry) @ roll)
