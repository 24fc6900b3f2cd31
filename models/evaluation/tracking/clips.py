"""Rendered clips in which instruments cross, are hidden and are cut by smoke, with the true id of every pixel."""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline import synthetic
from cliprl.pipeline.synthetic import SCENE_CLASSES, SceneRenderer
from cliprl.pipeline.synthetic.classes import CLASPER, PROBE, SHAFT, SUCTION, WRIST
from cliprl.pipeline.tracking.groups import TOOL, ClassGroups

# The classes of the scenes that belong to instruments, as one group.
TOOL_GROUPS = ClassGroups.made(dict.fromkeys((SHAFT, CLASPER, WRIST, SUCTION, PROBE), TOOL), (CLASPER, WRIST))
_TOOLS = TOOL_GROUPS.table > 0
FRAME_RATE = 25.0
FRAMES = 120
# Seconds of a scene that are searched for a crossing, and the time between two looks.
_SEARCHED, _LOOK = 24.0, 0.4
# The share of the image from which an instrument is in view; instruments this near, as a share of the height, touch: on the
# grid of a network their cells meet.
_IN_VIEW, _NEAR = 0.012, 0.008
_SMOKE = (200, 196, 190)


@dataclass(frozen=True, slots=True, eq=False)
class ClipFrame:
    """A frame: image uint8 (H, W, 3) RGB, labels uint8 (H, W) into SCENE_CLASSES, and ids uint8 (H, W), 0 for none."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    ids: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which instrument is hidden in which frames, and in which frames smoke lies across the image."""

    hidden: int
    hidden_frames: range
    smoke_frames: range
    angle: float


class RenderedClip:
    """The clip of a seed from `start` seconds on: `frames` frames of height x width pixels at 25 frames per second.

    In every clip one instrument is hidden for 10 to 50 frames, as by a fold of tissue, and for 15 to 40 frames a band of dense
    smoke crosses the image. Frames are rendered when they are read.
    """

    classes = SCENE_CLASSES

    def __init__(self, seed: int, start: float, frames: int = FRAMES, height: int = 256, width: int = 320) -> None:
        self.seed, self.frames, self._start = seed, frames, start
        self.name = f"{seed}-from-{start:.1f}s-{frames}x{height}x{width}"
        self._scene = SceneRenderer(seed, height, width)
        rng = np.random.default_rng([seed, 1])
        self.plan = self._planned(rng)

    def _planned(self, rng: np.random.Generator) -> _Plan:
        seen = np.unique(self._scene.instance_ids(self._start))
        hidden = int(rng.choice(seen[seen > 0])) if (seen > 0).any() else 0
        first, length = int(rng.uniform(0.15, 0.35) * self.frames), int(rng.integers(10, 51))
        smoke, smoky = int(rng.uniform(0.55, 0.7) * self.frames), int(rng.integers(15, 41))
        return _Plan(hidden, range(first, first + length), range(smoke, smoke + smoky), float(rng.uniform(0, np.pi)))

    def __iter__(self) -> Iterator[ClipFrame]:
        for index in range(self.frames):
            yield self._frame(index)

    def _frame(self, index: int) -> ClipFrame:
        t = self._start + index / FRAME_RATE
        image, labels = self._scene.render(t)
        ids = np.where(_TOOLS[labels], self._scene.instance_ids(t), 0).astype(np.uint8)
        hidden = np.zeros(ids.shape, bool)
        if index in self.plan.hidden_frames:
            hidden = ids == self.plan.hidden
            self._cover(image, hidden)
        if index in self.plan.smoke_frames:
            band = self._band(ids.shape)
            image[band] = _SMOKE
            hidden |= band
        ids[hidden] = 0
        return ClipFrame(image, np.where(ids > 0, labels, 0).astype(np.uint8), ids)

    def _cover(self, image: NDArray[np.uint8], hidden: NDArray[np.bool_]) -> None:
        """Paint the mean color of the image over an instrument."""
        wide = cv2.dilate(hidden.view(np.uint8), np.ones((5, 5), np.uint8)) > 0
        image[wide] = image.reshape(-1, 3).mean(axis=0).astype(np.uint8)

    def _band(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return a band across the middle, a tenth of the image's height wide."""
        y, x = np.indices(shape)
        across = (x - shape[1] / 2) * np.sin(self.plan.angle) - (y - shape[0] / 2) * np.cos(self.plan.angle)
        return np.asarray(np.abs(across) < shape[0] / 20)


def find_crossings(first: int, count: int, height: int = 256, width: int = 320) -> Iterator[tuple[int, float]]:
    """Find the first `count` clips (seed, start in seconds), from seed `first` on, whose instruments cross after the start.

    At the start at least two instruments are in view, and none touches another. A scene depends on its size: give the size of
    the clips.
    """
    starts = ((seed, _first_crossing(SceneRenderer(seed, height, width))) for seed in itertools.count(first))
    yield from itertools.islice(((seed, start) for seed, start in starts if start is not None), count)


def _first_crossing(scene: SceneRenderer) -> float | None:
    """Return the first moment in seconds from which a clip of the scene shows a crossing; None if there is none."""
    if scene.instrument_count < 2:
        return None
    looks, states = round(FRAMES / FRAME_RATE / _LOOK) - 2, list[bool | None]()
    for t in np.arange(0, _SEARCHED, _LOOK).tolist():
        states.append(_touching(scene.instance_ids(t)))
        if states[-1]:
            clear = [place for place in range(max(len(states) - looks, 0), len(states)) if states[place] is False]
            if clear:
                return float(clear[0] * _LOOK)
    return None


def _touching(ids: NDArray[np.uint8]) -> bool | None:
    """Whether instruments touch or cross; None if fewer than two are in view."""
    masks = [(ids == value).view(np.uint8) for value in np.unique(ids[ids > 0]).tolist()]
    if sum(np.count_nonzero(mask) >= _IN_VIEW * ids.size for mask in masks) < 2:
        return None
    reach = 2 * max(round(_NEAR * len(ids)), 1) + 1
    wide = [cv2.dilate(mask, np.ones((reach, reach), np.uint8)) for mask in masks]
    return any(bool(np.logical_and(a, b).any()) for i, a in enumerate(wide) for b in wide[:i])


def kept_folder(folder: Path) -> Path:
    """Make the folder in `folder` for clips of the present renderer, and return it."""
    sources = [*sorted(Path(inspect.getfile(synthetic)).parent.rglob("*.py")), Path(__file__)]
    kept = folder / hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    kept.mkdir(parents=True, exist_ok=True)
    return kept


def kept_frames(clip: RenderedClip, folder: Path | None) -> Iterable[ClipFrame]:
    """Return the frames of a clip from `kept_folder(folder)`, where they are written first if they are missing; 50 MB a clip."""
    if folder is None:
        return clip
    path = kept_folder(folder) / f"{clip.name}.npz"
    if not path.is_file():
        frames = [(frame.image, frame.labels, frame.ids) for frame in clip]
        image, labels, ids = (np.stack(part) for part in zip(*frames, strict=True))
        part = path.with_suffix(f".{os.getpid()}.npz")
        np.savez(part, image=image, labels=labels, ids=ids)
        part.replace(path)
    with np.load(path) as data:
        parts = [data[name] for name in ("image", "labels", "ids")]
    return (ClipFrame(*frame) for frame in zip(*parts, strict=True))


def kept_crossings(first: int, count: int, folder: Path | None) -> Iterator[tuple[int, float]]:
    """Find clips as `find_crossings` does, or read what an earlier search found."""
    if folder is None:
        yield from find_crossings(first, count)
        return
    path, found = kept_folder(folder) / f"crossings-{first}.json", list[tuple[int, float]]()
    if path.is_file():
        found = [(int(seed), float(start)) for seed, start in json.loads(path.read_text(encoding="utf-8"))]
    yield from found[:count]
    if len(found) >= count:
        return
    following = found[-1][0] + 1 if found else first
    for clip in find_crossings(following, count - len(found)):
        found.append(clip)
        path.write_text(json.dumps(found), encoding="utf-8")
        yield clip
