"""Render scenes into a folder: those that are not there yet, in the order of their seeds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cliprl.engines import CliprlError
from cliprl.models.data.io import IMAGE_SUFFIXES
from cliprl.models.data.raytraced.cache import RenderSettings, folder_digest, open_cache, save_scene, scene_path
from cliprl.models.data.raytraced.effects import develop
from cliprl.models.data.raytraced.layout import draw_layout
from cliprl.models.data.raytraced.mesh_folder import SUFFIXES, MeshFolder
from cliprl.models.data.raytraced.render import Renderer
from cliprl.models.data.raytraced.textures import TextureSource

# Streams of random numbers of a scene: one for its layout, one for what happens to its frames.
LAYOUT_STREAM, EFFECTS_STREAM = 1, 2
# Told after each scene: how many of how many are there, and frames and CPU seconds of this run so far.
Progress = Callable[[int, int, int, float], None]


@dataclass(frozen=True, slots=True)
class Job:
    """`count` scenes from seed `first` on, and the folders that tissue images and meshes are taken from."""

    out: Path
    first: int
    count: int
    mucosa: Path | None = None
    meshes: Path | None = None
    height: int = 256
    width: int = 320
    samples: int = 8
    pairs: int = 4

    def settings(self) -> RenderSettings:
        """Return what the folder's meta.json must say."""
        digests = folder_digest(self.mucosa, IMAGE_SUFFIXES), folder_digest(self.meshes, SUFFIXES)
        return RenderSettings(self.height, self.width, self.samples, self.pairs, *digests)


def generate(job: Job, progress: Progress = lambda done, total, frames, seconds: None) -> None:
    """Render the missing scenes of a job.

    A scene that can't be rendered is left out, and named at the end. Raises UsageError for folders that don't fit, and
    CliprlError where Mitsuba is missing, the disk is full, or scenes were left out.
    """
    source = TextureSource(job.mucosa)
    folder = MeshFolder(job.meshes) if job.meshes is not None else None
    settings = job.settings()
    renderer = Renderer(job.height, job.width, job.samples, folder)
    open_cache(job.out, settings)
    cv2.setNumThreads(1)
    seeds = range(job.first, job.first + job.count)
    missing = [seed for seed in seeds if not scene_path(job.out, seed).is_file()]
    failed: dict[int, Exception] = {}
    frames, start, there = 0, time.process_time(), job.count - len(missing)
    for number, seed in enumerate(missing, 1):
        try:
            _scene(job.out, seed, settings, source, folder, renderer)
        except CliprlError:
            raise
        except Exception as error:
            failed[seed] = error
        frames += settings.frames(seed)
        progress(there + number, job.count, frames, time.process_time() - start)
    if failed:
        seed, first = next(iter(failed.items()))
        raise CliprlError(
            f"{len(failed)} of {job.count} scenes could not be rendered, the first of them seed {seed} ({first}): "
            "the others are there; report it"
        )


def _scene(
    out: Path, seed: int, settings: RenderSettings, source: TextureSource, folder: MeshFolder | None, renderer: Renderer
) -> None:
    layout = draw_layout(np.random.default_rng((LAYOUT_STREAM, seed)), source, folder)
    rendered = renderer.frames(layout, settings.frames(seed), seed)
    frames = develop(rendered, (EFFECTS_STREAM, seed))
    quality = int(np.random.default_rng((EFFECTS_STREAM, seed)).integers(60, 97))
    save_scene(out, seed, frames, [tool.kind for tool in layout.tools], quality)
