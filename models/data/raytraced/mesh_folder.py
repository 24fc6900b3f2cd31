"""Instruments made from a folder of surface meshes: those of sofa_env and of the da Vinci Research Kit, by file name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.engines import CliprlError, UsageError
from cliprl.models.data.io import files_below
from cliprl.models.data.raytraced.geometry import Mesh, Rng, rotation, translation, tube
from cliprl.models.data.raytraced.instruments import LENGTH, SHAFT_PART, TIP_PART, WRIST_PART, InstrumentMesh, Piece

SUFFIXES = (".stl", ".obj", ".ply")
# The two jaws of each grasping instrument, and how far its tip lies from the pivot in mm.
JAW_MESHES: Mapping[str, tuple[str, str, float]] = {
    "maryland": ("maryland_dissector_jaw_left", "maryland_dissector_jaw_right", 25.0),
    "forceps": ("forceps_jaw_left", "forceps_jaw_right", 26.0),
    "atraumatic forceps": ("atraumatic_forceps_jaw_left", "atraumatic_forceps_jaw_right", 18.0),
    "scissors": ("scissors_jaw_left", "scissors_jaw_right", 15.0),
}
_WRIST = ("PSM_wrist", "PSM_wrist_shaft", "PSM_tip_006_wrist")
# What each instrument needs of the folder.
MESH_FILES: Mapping[str, tuple[str, ...]] = {
    **{kind: (left, right, "instrument_shaft") for kind, (left, right, _) in JAW_MESHES.items()},
    "single-action forceps": ("single_action_forceps_jaw", "single_action_forceps_shaft"),
    "electrode": ("dissection_electrode",),
    "large needle driver": (*_WRIST, "PSM_tip_jaw_1", "PSM_tip_jaw_2"),
}
# What the label map and the side information call them.
MESH_KINDS: Mapping[str, str] = {"maryland": "dissector", "electrode": "hook", "large needle driver": "robotic"}


class MeshFolder:
    """The instruments that can be built from the meshes in a folder and its sub-folders."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError where the folder holds no complete instrument."""
        if not folder.is_dir():
            raise UsageError(f"'{folder}' is no folder: give --meshes a folder of meshes, or leave it out")
        self.files = {path.stem: path for path in sorted(files_below(folder, SUFFIXES))}
        self.kinds = [kind for kind, names in MESH_FILES.items() if all(name in self.files for name in names)]
        if not self.kinds:
            wanted = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in MESH_FILES.items())
            raise UsageError(
                f"'{folder}' holds the meshes of no instrument: an instrument needs all of its files ({wanted})"
            )

    def build(self, kind: str, rng: Rng, opening: float) -> InstrumentMesh:
        """Build one of `kinds`; `opening` is that of each jaw in radians."""
        if kind in JAW_MESHES:
            return self._grasper(kind, rng, opening)
        if kind == "electrode":
            pieces = (
                Piece(self._part("dissection_electrode", above=6.0), TIP_PART, "tip"),
                Piece(self._part("dissection_electrode", below=6.0), SHAFT_PART, "shaft"),
            )
            return InstrumentMesh("hook", pieces, 15.0)
        return self._needle_driver(rng, opening) if kind == "large needle driver" else self._single(opening)

    def _part(self, name: str, above: float = -1e9, below: float = 1e9, scale: float = 1.0) -> Mesh:
        return _load(self.files[name], scale, above, below)

    def _grasper(self, kind: str, rng: Rng, opening: float) -> InstrumentMesh:
        left, right, reach = JAW_MESHES[kind]
        first, cut = opening * rng.uniform(0.6, 1.4), -float(round(rng.uniform(1.0, 14.0)))
        neck = self._part("instrument_shaft", above=cut)
        pieces = (
            Piece(self._part(left).moved(rotation(first, [1, 0, 0])), TIP_PART, "tip"),
            Piece(self._part(right).moved(rotation(-opening, [1, 0, 0])), TIP_PART, "tip"),
            Piece(neck, WRIST_PART, "wrist"),
            Piece(_tube_to(neck), SHAFT_PART, "shaft"),
        )
        return InstrumentMesh(MESH_KINDS.get(kind, "scissors" if kind == "scissors" else "grasper"), pieces, reach)

    def _single(self, opening: float) -> InstrumentMesh:
        body = "single_action_forceps_shaft"
        neck = self._part(body, above=-8.0, below=-2.0)
        pieces = (
            Piece(self._part("single_action_forceps_jaw").moved(rotation(1.3 * opening, [1, 0, 0])), TIP_PART, "tip"),
            Piece(self._part(body, above=-2.0), TIP_PART, "tip"),
            Piece(neck, WRIST_PART, "wrist"),
            Piece(_tube_to(neck), SHAFT_PART, "shaft"),
        )
        return InstrumentMesh("grasper", pieces, 26.0)

    def _needle_driver(self, rng: Rng, opening: float) -> InstrumentMesh:
        pitch, yaw = rng.normal(0, 0.5), rng.normal(0, 0.45)
        metres = 1000.0
        at = translation(0, 0, 9.0) @ rotation(pitch, [0, 1, 0])
        jaw = at @ translation(0, 0, 9.1) @ rotation(yaw, [1, 0, 0])
        pieces = [
            Piece(tube(4.1, -LENGTH, 0.3), SHAFT_PART, "shaft"),
            Piece(self._part("PSM_wrist", scale=metres), WRIST_PART, "clevis"),
            Piece(self._part("PSM_wrist_shaft", scale=metres).moved(translation(0, 0, 9.0)), WRIST_PART, "wrist"),
            Piece(self._part("PSM_tip_006_wrist", scale=metres).moved(at), WRIST_PART, "wrist"),
        ]
        for name, sign in (("PSM_tip_jaw_1", 1), ("PSM_tip_jaw_2", -1)):
            mesh = self._part(name, scale=metres)
            pieces.append(Piece(mesh.moved(jaw @ rotation(sign * opening, [1, 0, 0])), TIP_PART, "tip"))
        return InstrumentMesh("robotic", tuple(pieces), 27.0, True)


def _tube_to(neck: Mesh) -> Mesh:
    """Return a shaft that ends just inside the piece before it: where that begins depends on the size of its faces."""
    return tube(2.2, -LENGTH, float(neck.vertices[:, 2].min()) + 0.3)


@lru_cache(maxsize=64)
def _load(path: Path, scale: float, above: float, below: float) -> Mesh:
    """Read the part of a mesh whose faces lie between two heights; edges sharper than 40 degrees stay sharp."""
    import trimesh

    try:
        loaded: Any = trimesh.load(path, force="mesh")
    except Exception as error:  # trimesh raises whatever its readers raise
        raise CliprlError(f"{path} can't be read as a mesh ({error}): copy it again") from error
    if not len(loaded.faces):
        raise CliprlError(f"{path} can't be read as a mesh (it has no faces): copy it again")
    loaded.apply_scale(scale)
    loaded.merge_vertices()
    heights = loaded.triangles_center[:, 2]
    loaded.update_faces((heights >= above) & (heights < below))
    loaded.remove_unreferenced_vertices()
    smooth: Any = trimesh.graph.smooth_shade(loaded, angle=0.7)
    vertices = np.array(smooth.vertices, float)
    return Mesh(
        vertices, np.array(smooth.faces, np.int64), np.array(smooth.vertex_normals, float), np.zeros((len(vertices), 2))
    )
