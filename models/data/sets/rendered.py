"""Rendered surgical scenes as a data set, rendered once and cached on disk."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread

import cv2
import numpy as np

from cliprl.engines import CliprlError, UsageError, available_cpus
from cliprl.engines.atomic_write import atomic_write
from cliprl.models.data.dataset_spec import parse_seeds
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.io import read_npz
from cliprl.models.data.registry import DatasetContext, register_dataset
from cliprl.models.data.sample import Image, Sample
from cliprl.pipeline import synthetic
from cliprl.pipeline.synthetic import SCENE_CLASSES, SceneRenderer

NAME = "rendered"
# Seconds between the frames of a scene: near enough for a temporal prior, far enough for a different image.
INTERVAL = 0.12
# Default seeds, far from those of any recipe.
UNSEEN_SEEDS = "900000-900023"


@dataclass(frozen=True, slots=True)
class RenderedSpec:
    """A range of scenes: `count` seeds from `first` on, each with `frames` images of height x width pixels."""

    first: int
    count: int
    frames: int
    height: int
    width: int


class RenderedScenes(LabelledDataset):
    """Rendered scenes with exact labels, captions, and instrument layers for copy-paste composition."""

    name = NAME
    classes = SCENE_CLASSES

    def __init__(self, which: RenderedSpec, cache: Path, workers: int, progress: Callable[[int, int], None]) -> None:
        self.which = which
        self.folder = cache / f"scenes-{_key(which)}"
        self.folder.mkdir(parents=True, exist_ok=True)
        missing = [s for s in range(which.first, which.first + which.count) if not self._path(s).is_file()]
        _render_all([(s, which, self._path(s)) for s in missing], workers, progress)
        self._files = [self._path(s) for s in range(which.first, which.first + which.count)]

    def _path(self, seed: int) -> Path:
        return self.folder / f"{seed:06d}.npz"

    def __len__(self) -> int:
        return self.which.count * self.which.frames

    def __getitem__(self, index: int) -> Sample:
        path, frame = self._place(index)
        stored, labels = read_npz(path, (f"image{frame}", f"labels{frame}"))
        image = cv2.cvtColor(_decode(stored), cv2.COLOR_BGR2RGB)
        return Sample(np.asarray(image, np.uint8), _decode(labels), self.sequence(index))

    def sequence(self, index: int) -> str:
        """Return the sequence of a sample: its scene."""
        return f"scene {self._place(index)[0].stem}"

    def instruments(self, index: int) -> tuple[Image, Image]:
        """Return the instrument layer: RGBA uint8 (H, W, 4) and labels uint8 (H, W)."""
        path, frame = self._place(index)
        with np.load(path) as data:
            rgba = _decode(data[f"instruments{frame}"])
            labels = _decode(data[f"instrument_labels{frame}"])
        return cv2.cvtColor(rgba, cv2.COLOR_BGRA2RGBA).astype(np.uint8), labels

    def instance_ids(self, index: int) -> Image:
        """Return the instrument at each pixel, uint8 (H, W), 0 for none."""
        path, frame = self._place(index)
        with np.load(path) as data:
            return _decode(data[f"ids{frame}"])

    def caption(self, index: int) -> str:
        """Return the caption of an image."""
        path, frame = self._place(index)
        with np.load(path) as data:
            return str(data[f"caption{frame}"])

    def _place(self, index: int) -> tuple[Path, int]:
        return self._files[index // self.which.frames], index % self.which.frames


def _key(which: RenderedSpec) -> str:
    """Return the cache folder's name, which depends on the image size and the renderer's source."""
    source = "".join(p.read_text() for p in sorted(Path(inspect.getfile(synthetic)).parent.glob("*.py")))
    settings = json.dumps({k: v for k, v in asdict(which).items() if k not in ("first", "count")})
    return hashlib.sha256((source + settings + str(INTERVAL)).encode()).hexdigest()[:12]


def _render_all(jobs: list[tuple[int, RenderedSpec, Path]], workers: int, progress: Callable[[int, int], None]) -> None:
    if not jobs:
        return
    # Spawn: a process forked while threads of torch or OpenCV run can hang.
    fresh = get_context("spawn")
    try:
        with ProcessPoolExecutor(workers or available_cpus(), fresh, initializer=_prepare) as pool:
            for done, _ in enumerate(pool.map(_render, *zip(*jobs, strict=True)), 1):
                progress(done, len(jobs))
    except BrokenProcessPool as error:
        raise CliprlError(
            "a process that renders scenes ended early; finished scenes are kept. Where memory is short, set data.workers=1 or "
            "end other programs; in a script, call this under `if __name__ == '__main__':`, because each process imports it"
        ) from error


def _prepare() -> None:
    """Prepare a rendering process: use one OpenCV thread, and exit if the parent process is killed."""
    cv2.setNumThreads(1)
    parent = parent_process()
    if parent is not None:
        Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _render(seed: int, which: RenderedSpec, path: Path) -> None:
    """Render one scene into a file: images as JPEG of high quality, labels and layers as PNG."""
    renderer = SceneRenderer(seed, which.height, which.width)
    start = float(np.random.default_rng(seed).uniform(0, 20))
    arrays: dict[str, Image | str] = {}
    for frame in range(which.frames):
        t = start + frame * INTERVAL
        image, labels = renderer.render(t)
        layer, layer_labels = renderer.render_instruments(t)
        arrays[f"image{frame}"] = _encode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95]
        )
        arrays[f"labels{frame}"] = _encode(".png", labels)
        arrays[f"instruments{frame}"] = _encode(".png", cv2.cvtColor(layer, cv2.COLOR_RGBA2BGRA))
        arrays[f"instrument_labels{frame}"] = _encode(".png", layer_labels)
        arrays[f"ids{frame}"] = _encode(".png", renderer.instance_ids(t))
        arrays[f"caption{frame}"] = renderer.caption(t)
    with atomic_write(path, shared=True) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _encode(extension: str, image: cv2.typing.MatLike, options: list[int] | None = None) -> Image:
    _, data = cv2.imencode(extension, image, options or [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return data.astype(np.uint8)


def _decode(data: Image) -> Image:
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), np.uint8)


@register_dataset(
    NAME,
    "scenes that this program renders itself",
    options={"seeds": f"FIRST-LAST (default {UNSEEN_SEEDS})", "frames": "frames of each scene (default 10)"},
    path_kind="cache",
    source={"name": "rendered scenes (cliprl.pipeline.synthetic)", "licence": "Apache-2.0"},
)
def open_rendered(path: Path, options: Mapping[str, str], context: DatasetContext) -> RenderedScenes:
    """Open the scenes that the options name, and render those that `path` does not hold yet."""
    seeds, frames = parse_seeds(options.get("seeds", UNSEEN_SEEDS)), options.get("frames", "10")
    if seeds is None or not frames.isdecimal() or not int(frames):
        raise UsageError(
            f"rendered scenes of seeds '{options.get('seeds')}', frames '{frames}': give seeds=FIRST-LAST and frames=N"
        )
    which = RenderedSpec(seeds.start, len(seeds), int(frames), context.height, context.width)
    return RenderedScenes(which, path, context.workers, context.progress)
