"""Ray tracing with Mitsuba 3: a layout becomes linear radiance, labels, instance numbers and the instruments' coverage.

Mitsuba, its denoiser and Dr.Jit are imported when a renderer is made, not before. Three habits keep Dr.Jit from compiling
anew for every scene, which would cost more than the rendering: dummy objects stay alive at high numbers of its registry,
garbage is collected after each frame, and values that it treats as literals stay the same.
"""

from __future__ import annotations

import ctypes.util
import gc
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import CliprlError
from cliprl.models.data.raytraced.geometry import Mesh
from cliprl.models.data.raytraced.layout import CameraPose, Layout, Light
from cliprl.models.data.raytraced.materials import Material
from cliprl.models.data.raytraced.mesh_folder import MeshFolder
from cliprl.models.data.raytraced.objects import Placed
from cliprl.models.data.raytraced.textures import Tissue

# Versions of LLVM that Dr.Jit runs with; with 14 to 16 it aborts the process.
LLVM_VERSIONS = (19, 20, 21, 18, 17)
# Samples a side of a pixel for labels and coverage.
SUBPIXELS = 2
# Radiance is clipped here before denoising: brighter samples are noise of reflected light.
BRIGHTEST = 8.0


@dataclass(frozen=True, slots=True)
class Rendered:
    """A frame: linear radiance float32 (H, W, 3), depth in mm float32 (H, W), labels and instances uint8 (H, W), and the
    share of each pixel that instruments cover, float32 (H, W)."""

    radiance: NDArray[np.float32]
    depth: NDArray[np.float32]
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint8]
    coverage: NDArray[np.float32]


def llvm_library() -> str | None:
    """Return the LLVM library that Dr.Jit can use: the one named in DRJIT_LIBLLVM_PATH, or one that is installed."""
    if named := os.environ.get("DRJIT_LIBLLVM_PATH"):
        return named
    for version in LLVM_VERSIONS:
        patterns = (f"*/libLLVM*{version}.so*", f"llvm-{version}/lib/libLLVM*.so*", f"libLLVM*{version}.so*")
        for root in (Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/local/lib")):
            found = sorted(path for pattern in patterns for path in root.glob(pattern))
            if found:
                return str(found[0])
        if name := ctypes.util.find_library(f"LLVM-{version}"):
            return name
    return None


def _load(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise CliprlError(
            f"ray tracing needs {name.partition('.')[0]}, which is not installed: pip install 'cliprl[render]'"
        ) from error


class Renderer:
    """Renders layouts of `height` x `width` pixels with `samples` paths a pixel, on one thread."""

    def __init__(self, height: int, width: int, samples: int, folder: MeshFolder | None = None) -> None:
        """Raises CliprlError where Mitsuba or its denoiser is not installed."""
        self.height, self.width, self.samples, self.folder = height, width, samples, folder
        library = llvm_library()
        if library:
            os.environ["DRJIT_LIBLLVM_PATH"] = library
        # Without a fitting LLVM the interpreter of single rays serves: three times slower, the same scenes.
        self.variant = "llvm_ad_rgb" if library else "scalar_rgb"
        self.mi, self.dr, self.oidn = _load("mitsuba"), _load("drjit"), _load("mitsuba_oidn")
        self.mi.set_variant(self.variant)
        self.dr.set_thread_count(1)
        self._alive = self._dummies()

    def frames(self, layout: Layout, count: int, seed: int) -> list[Rendered]:
        """Render the first frame of a layout, or the first two."""
        still = [(placed, self._shape(f"still{i}", placed)) for i, placed in enumerate(layout.still)]
        return [self._frame(layout, number, still, seed) for number in range(count)]

    def _frame(self, layout: Layout, number: int, still: list[tuple[Placed, Any]], seed: int) -> Rendered:
        pieces = layout.instruments(number, self.folder)
        objects = [*still, *((placed, self._shape(f"tool{i}", placed)) for i, placed in enumerate(pieces))]
        description = self._description(layout, layout.view(number))
        description |= {f"object{i}": shape for i, (_, shape) in enumerate(objects)}
        scene = self.mi.load_dict(description, optimize=False)
        planes = np.array(self.mi.render(scene, sensor=0, spp=self.samples, seed=2 * seed + number))
        index = np.array(self.mi.render(scene, sensor=1, integrator=self._indices(), spp=1, seed=1))[..., -1]
        labels, instances, coverage = self._labels(scene, index, {shape.id(): placed for placed, shape in objects})
        del scene, description, objects
        gc.collect()
        return Rendered(self._denoised(planes), planes[..., -1].astype(np.float32), labels, instances, coverage)

    def _denoised(self, planes: NDArray[Any]) -> NDArray[np.float32]:
        """Denoise the radiance, guided by albedo and normals; the channels after radiance are theirs, then depth."""
        color = np.clip(np.nan_to_num(planes[..., :3]), 0, BRIGHTEST).astype(np.float32)
        albedo = np.clip(planes[..., -7:-4], 0, 1).astype(np.float32)
        normals = planes[..., -4:-1].astype(np.float32)
        made = self.oidn.denoise(
            *map(np.ascontiguousarray, (color,)), albedo=albedo.copy(), normal=normals.copy(), hdr=True
        )
        return np.asarray(made, np.float32)

    def _labels(
        self, scene: Any, index: NDArray[Any], placed: Mapping[str, Placed]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.float32]]:
        """Return labels, instances and the instruments' coverage from the shape that each sub-pixel shows."""
        numbers: dict[int, Placed] = {}
        for position, shape in enumerate(scene.shapes()):
            if shape.id() in placed:
                numbers[self._number(shape, position)] = placed[shape.id()]
        table = np.zeros(max(int(np.nanmax(index)), *numbers) + 2, np.int64)
        for number, one in numbers.items():
            table[number] = one.label + 256 * one.instance
        codes = table[np.clip(np.rint(np.nan_to_num(index)), 0, len(table) - 1).astype(int)]
        cells = (
            codes.reshape(self.height, SUBPIXELS, self.width, SUBPIXELS)
            .swapaxes(1, 2)
            .reshape(self.height, self.width, -1)
        )
        coverage = (cells >= 256).mean(2).astype(np.float32)
        code = _majority(cells)
        return (code % 256).astype(np.uint8), (code // 256).astype(np.uint8), coverage

    def _number(self, shape: Any, position: int) -> int:
        """Return the number that the index pass gives a shape: with LLVM that of a registry, else its position, from 1."""
        if not self.variant.startswith("llvm"):
            return position + 1
        return int(self.dr.reinterpret_array(self.mi.UInt32, self.mi.ShapePtr(shape))[0])

    def _indices(self) -> Any:
        return self.mi.load_dict({"type": "aov", "aovs": "index:shape_index"})

    def _description(self, layout: Layout, camera: CameraPose) -> dict[str, Any]:
        """Return all of a scene but its shapes; the second camera is that of the labels."""
        scene: dict[str, Any] = {
            "type": "scene",
            "integrator": {
                "type": "aov",
                "aovs": "albedo:albedo,normal:sh_normal,depth:depth",
                "image": {"type": "path", "max_depth": 3, "rr_depth": 9},
            },
            "sensor0": self._camera(camera, 1),
            "sensor1": self._camera(camera, SUBPIXELS),
        }
        scene |= {f"light{i}": self._light(light, camera) for i, light in enumerate(layout.lights)}
        surround = np.concatenate([layout.surround, layout.surround[:, ::-1]], 1) ** 2.2 * 0.05
        scene["surround"] = {
            "type": "envmap",
            "bitmap": self.mi.Bitmap(np.ascontiguousarray(surround, np.float32)),
            "scale": 1.0,
        }
        return scene

    def _camera(self, camera: CameraPose, subpixels: int) -> dict[str, Any]:
        place = self.mi.ScalarTransform4f().look_at(
            origin=camera.origin.tolist(), target=camera.target.tolist(), up=[0, -1, 0]
        )
        film = {
            "type": "hdrfilm",
            "width": self.width * subpixels,
            "height": self.height * subpixels,
            "pixel_format": "rgb",
        }
        return {
            "type": "perspective",
            "fov": camera.field_of_view,
            "near_clip": 4.0,
            "to_world": place,
            "film": {**film, "rfilter": {"type": "box"}},
            "sampler": {"type": "independent", "sample_count": 8},
        }

    def _light(self, light: Light, camera: CameraPose) -> dict[str, Any]:
        origin, target = light.position + camera.origin, light.target + camera.origin
        return {
            "type": "spot",
            "to_world": self.mi.ScalarTransform4f().look_at(
                origin=origin.tolist(), target=target.tolist(), up=[0, 1, 0.01]
            ),
            "intensity": {"type": "rgb", "value": [float(light.intensity)] * 3},
            "cutoff_angle": float(light.cutoff),
            "beam_width": float(light.beam),
        }

    def _shape(self, name: str, placed: Placed) -> Any:
        return self._mesh(name, placed.mesh, self._surface(placed.surface))

    def _mesh(self, name: str, mesh: Mesh, surface: Any) -> Any:
        properties = self.mi.Properties()
        properties["mesh_bsdf"] = surface
        made = self.mi.Mesh(
            name,
            len(mesh.vertices),
            len(mesh.faces),
            has_vertex_normals=True,
            has_vertex_texcoords=True,
            props=properties,
        )
        values = self.mi.traverse(made)
        for key, array in (
            ("vertex_positions", mesh.vertices),
            ("vertex_normals", mesh.normals),
            ("vertex_texcoords", mesh.uv),
        ):
            values[key] = np.ascontiguousarray(array, np.float32).ravel()
        values["faces"] = np.ascontiguousarray(mesh.faces, np.uint32).ravel()
        values.update()
        return made

    def _surface(self, surface: Material | Tissue) -> Any:
        if isinstance(surface, Material):
            color = {"type": "rgb", "value": list(surface.color)}
            return self.mi.load_dict(_principled(color, surface, 0.8, surface.metallic))
        relief = {"type": "bumpmap", "arbitrary": self._bitmap(surface.relief[..., None]), "scale": 1.0}
        return self.mi.load_dict(
            {**relief, "bsdf": _principled(self._bitmap(surface.color), surface, surface.gloss, 0.001)}
        )

    def _bitmap(self, values: NDArray[np.float32]) -> dict[str, Any]:
        bitmap = self.mi.Bitmap(np.ascontiguousarray(values, np.float32))
        return {"type": "bitmap", "bitmap": bitmap, "raw": True, "wrap_mode": "mirror"}

    def _dummies(self) -> list[Any]:
        """Return a few objects with high numbers in Dr.Jit's registry: kernels contain the highest number."""
        corner = np.array([[0, 0, -900.0], [1, 0, -900], [0, 1, -900]])
        triangle = Mesh(corner, np.array([[0, 1, 2]]), np.tile([0, 0, 1.0], (3, 1)), np.zeros((3, 2)))
        flat = np.full((4, 4), 0.5, np.float32)
        tissue = Tissue(np.repeat(flat[..., None], 3, 2), flat, 0.5, 0.5, 0.1, 0.5)
        steel = Material((0.5, 0.5, 0.5), 0.9, 0.3)
        made = [self._mesh("dummy", triangle, self._surface(tissue if i % 8 == 0 else steel)) for i in range(64)]
        return [made[-1], made[-8], made[-9], made[-2]]


def _principled(color: dict[str, Any], surface: Material | Tissue, gloss: float, metallic: float) -> dict[str, Any]:
    return {
        "type": "principled",
        "base_color": color,
        "roughness": float(surface.roughness),
        "specular": float(surface.specular),
        "clearcoat": float(surface.clearcoat),
        "clearcoat_gloss": float(gloss),
        "metallic": float(metallic),
    }


def _majority(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the most frequent of each pixel's codes (H, W, N); of equally frequent ones an instrument's, or the first."""
    votes = 2 * (cells[..., :, None] == cells[..., None, :]).sum(-1) + (cells >= 256)
    return np.take_along_axis(cells, votes.argmax(-1)[..., None], -1)[..., 0]
