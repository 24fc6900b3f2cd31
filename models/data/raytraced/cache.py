"""Ray-traced scenes on disk: one file a scene, written whole or not at all, and a meta.json with the settings that made them.

meta.json      format, settings and their key; written before the first scene
000123.npz     the scene of seed 123: of each frame n the arrays image<n> (JPEG), labels<n>, instances<n>, covered<n>
               and layer<n> (PNG), and `kinds`, the instruments in the order of their numbers (JSON)
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import CliprlError, UsageError, explained
from cliprl.engines.atomic_write import atomic_write
from cliprl.models.data.io import files_below, read_npz
from cliprl.models.data.raytraced.effects import RenderedPasses

CACHE_FORMAT = "cliprl ray-traced scenes"
# To be raised with every change that alters what a seed looks like.
CACHE_VERSION = 1
CACHE_LAYOUT = "meta.json and NNNNNN.npz, as `python -m cliprl.models.data.raytraced FOLDER` writes them"


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """The common settings of the scenes of a folder. Each `pairs`-th seed has two consecutive frames (0: none has), others one.

    `mucosa` and `meshes` are digests of the folders that color and shape came from; "" where they were procedural.
    """

    height: int = 256
    width: int = 320
    samples: int = 8
    pairs: int = 4
    mucosa: str = ""
    meshes: str = ""
    version: int = CACHE_VERSION

    def frames(self, seed: int) -> int:
        """Return how many frames the scene of a seed has."""
        return 2 if self.pairs and seed % self.pairs == 0 else 1

    def key(self) -> str:
        """Return a digest of all settings."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def folder_digest(folder: Path | None, suffixes: Sequence[str]) -> str:
    """Return a digest of the names and sizes of a folder's files with the given suffixes; "" for no folder."""
    if folder is None:
        return ""
    files = sorted(files_below(folder, suffixes))
    lines = [f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def scene_path(folder: Path, seed: int) -> Path:
    """Return the file of a scene."""
    return folder / f"{seed:06d}.npz"


def scene_seeds(folder: Path) -> list[int]:
    """Return the seeds of the finished scenes in a folder, in order."""
    return sorted(int(path.stem) for path in folder.glob("*.npz") if re.fullmatch(r"\d{6,}", path.stem))


def open_cache(folder: Path, settings: RenderSettings) -> None:
    """Make a folder ready for scenes of these settings. Raises UsageError where it holds scenes of others."""
    path = folder / "meta.json"
    if path.exists():
        _refuse_others(folder, read_settings(folder), settings)
        return
    if folder.is_dir() and scene_seeds(folder):
        raise UsageError(
            f"'{folder}' holds scenes and no meta.json, so their settings are unknown: give another folder"
        )
    table = {"format": CACHE_FORMAT, "key": settings.key(), "settings": asdict(settings)}
    with explained(f"'{folder}' can't be written to", "give another folder, or make room", CliprlError):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, shared=True) as file:
            file.write(json.dumps(table, indent=2).encode())


def _refuse_others(folder: Path, there: RenderSettings, wanted: RenderSettings) -> None:
    old, new = asdict(there), asdict(wanted)
    differing = [f"{name} {old[name] or 'none'} (now {new[name] or 'none'})" for name in old if old[name] != new[name]]
    if differing:
        raise UsageError(
            f"'{folder}' holds scenes made with {', '.join(differing)}: give another folder, or the settings of that one"
        )


def read_settings(folder: Path) -> RenderSettings:
    """Read meta.json. Raises UsageError where there is none, CliprlError where it is damaged or of another program."""
    path = folder / "meta.json"
    if not path.is_file():
        raise UsageError(f"no ray-traced scenes in '{folder}': it must hold {CACHE_LAYOUT}")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        settings = RenderSettings(**table["settings"])
        whole = table["format"] == CACHE_FORMAT and table["key"] == settings.key()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CliprlError(f"{path} can't be read ({error}): render into another folder") from error
    if not whole:
        raise CliprlError(f"{path} is not that of ray-traced scenes, or was altered: render into another folder")
    return settings


def save_scene(folder: Path, seed: int, frames: Sequence[RenderedPasses], kinds: Sequence[str], quality: int) -> None:
    """Write a scene; its image is a JPEG of `quality` (1..100). Raises CliprlError where the disk is full."""
    arrays: dict[str, Any] = {"kinds": np.array(json.dumps(list(kinds)))}
    for number, frame in enumerate(frames):
        bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        arrays[f"image{number}"] = _encoded(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        arrays[f"layer{number}"] = _encoded(".png", cv2.cvtColor(frame.layer, cv2.COLOR_RGBA2BGRA))
        planes = {"labels": frame.labels, "instances": frame.instances, "covered": 255 * frame.covered.astype(np.uint8)}
        arrays |= {f"{name}{number}": _encoded(".png", plane) for name, plane in planes.items()}
    path = scene_path(folder, seed)
    full = explained(f"{path} can't be written", "make room and start again", CliprlError)
    with full, atomic_write(path, shared=True) as file:
        np.savez(file, **arrays)


def read_cached_array(path: Path, name: str) -> NDArray[np.uint8]:
    """Read a decoded array of a scene: RGB, RGBA or one channel. Raises CliprlError for a file that is damaged."""
    try:
        (stored,) = read_npz(path, (name,))
        decoded = cv2.imdecode(stored, cv2.IMREAD_UNCHANGED)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise CliprlError(f"{path} can't be read as a scene ({error}): delete it and render it again") from error
    if decoded is None:
        raise CliprlError(f"{path} holds a damaged {name}: delete it and render it again")
    if decoded.ndim == 2:
        return np.asarray(decoded, np.uint8)
    return np.asarray(
        cv2.cvtColor(decoded, cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB), np.uint8
    )


def read_kinds(path: Path) -> list[str]:
    """Read which instruments a scene holds: that of instance 1 first. Raises CliprlError for a file that is damaged."""
    try:
        (kinds,) = read_npz(path, ("kinds",))
        return [str(kind) for kind in json.loads(str(kinds))]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise CliprlError(f"{path} can't be read as a scene ({error}): delete it and render it again") from error


def _encoded(
    extension: str, image: cv2.typing.MatLike, options: Sequence[int] = (cv2.IMWRITE_PNG_COMPRESSION, 4)
) -> Any:
    return cv2.imencode(extension, image, list(options))[1]
