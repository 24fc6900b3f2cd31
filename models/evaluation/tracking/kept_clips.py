"""Rendered clips that are kept in a folder: a changed tracker is then scored in a fifth of the time."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from cliprl.models.evaluation.tracking import clips
from cliprl.models.evaluation.tracking.clips import ClipFrame, RenderedClip, find_crossings
from cliprl.pipeline import synthetic


def kept_folder(folder: Path) -> Path:
    """Make the folder in `folder` for clips of the present renderer, and return it."""
    sources = [*sorted(Path(inspect.getfile(synthetic)).parent.rglob("*.py")), Path(inspect.getfile(clips))]
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
