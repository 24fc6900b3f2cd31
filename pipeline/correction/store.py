"""A folder of corrected frames that `cliprl-train` and `cliprl-eval` read as `folder:`; every keep is a new revision.

    images/NAME.png             the frame, without the overlay
    masks/NAME.png              the newest revision: class ids, the palette in the colors of the classes
    revisions/NAME.r0001.png    every revision
    corrections.jsonl           a line for each revision: who, when, what was clicked, on which frame of which source
    classes.toml

Several programs may keep corrections in one folder at once: a lock file orders them, and no revision is ever replaced.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import av
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, CliprlError, UsageError
from cliprl.engines.atomic_write import atomic_write
from cliprl.pipeline.sinks.atomic_file import Identity, file_identity
from cliprl.pipeline.sinks.labels.dataset_folder import classes_toml
from cliprl.pipeline.sinks.labels.indexed_png import encode_png
from cliprl.pipeline.sources.decoding.nv12_writer import plane_array

LOG, CLASSES = "corrections.jsonl", "classes.toml"
# The author of a mask that another program wrote.
BY_HAND = "another program"
_LOCK = ".corrections.lock"
# Seconds to wait for another program that keeps a correction in the same folder.
_LOCK_SECONDS = 10.0
# Corrected frames do not follow each other as video.
_HEAD = "consecutive = false\n\n"


@dataclass(frozen=True, slots=True)
class Revision:
    """One kept correction of a frame: its number, from 1, its author, and the time in UTC (ISO 8601)."""

    name: str
    number: int
    author: str
    time: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return {"name": self.name, "revision": self.number, "author": self.author, "time": self.time}


class CorrectionStore:
    """Corrections with masks of `classes` in `folder`, which is made if it is missing.

    Raises UsageError if the folder can't be made or written, or holds other classes or images that are no corrections.
    """

    def __init__(self, folder: Path, classes: Sequence[ClassSpec]) -> None:
        self.folder = folder
        self._palette = [spec.color for spec in classes]
        self._revisions: list[Revision] = []
        self._read_state: Identity | None = None
        text, path = _HEAD + classes_toml(classes), folder / CLASSES
        try:
            if not path.exists() and (folder / "images").is_dir() and any((folder / "images").iterdir()):
                raise UsageError(f"'{folder}' holds images that are no corrections: choose an empty or a new folder")
            for part in ("images", "masks", "revisions"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / _LOCK, timeout=_LOCK_SECONDS)
            with self._lock:
                if not path.exists():
                    _write(path, text.encode())
                found = path.read_text(encoding="utf-8")
                if found == text:
                    self._repair()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"can't keep corrections in '{folder}' ({error}): choose another folder") from error
        if found != text:
            raise UsageError(f"'{path}' lists other classes than the bundle: choose another folder for the corrections")

    def revisions(self, name: str = "") -> list[Revision]:
        """Return the kept revisions in their order; with `name`, those of that frame. Lines that were cut short are left out."""
        path = self.folder / LOG
        state = file_identity(path)
        if state != self._read_state:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if state else []
            self._revisions, self._read_state = [one for line in lines if (one := _revision(line))], state
        return [one for one in self._revisions if name in ("", one.name)]

    def newest(self, name: str) -> NDArray[np.uint8] | None:
        """Return the newest kept labels of a frame, uint8 (H, W); None if there are none."""
        path = self.folder / "masks" / f"{name}.png"
        labels = _read_indexed(path) if path.is_file() else None
        return None if labels is None or labels.max(initial=0) >= len(self._palette) else labels

    def keep(self, name: str, image: bytes, labels: NDArray[np.uint8], about: Mapping[str, Any]) -> Revision:
        """Keep labels of the frame `name`, whose image is a PNG, as its next revision. Raises CliprlError if the disk refuses.

        `about` is written into the log: it has `author` and `time`. A mask that was edited by hand becomes a revision before.
        """
        mask, place = encode_png(labels, self._palette), self.folder / "masks" / f"{name}.png"
        try:
            with self._lock:
                saved = (self.folder / "revisions").glob(f"{glob.escape(name)}.r*.png")
                if place.is_file() and (edited := place.read_bytes()) not in {path.read_bytes() for path in saved}:
                    self._add(name, image, edited, {"author": BY_HAND, "time": about["time"]})
                number = self._add(name, image, mask, about)
                _write(place, mask)
        except OSError as error:
            raise CliprlError(f"the correction was not kept ({error.strerror or error}): '{self.folder}'") from error
        return Revision(name, number, str(about["author"]), str(about["time"]))

    def _add(self, name: str, image: bytes, mask: bytes, about: Mapping[str, Any]) -> int:
        """Write the next revision of a frame, then its image if it is missing, then the line in the log. Return its number."""
        number = 1 + max((one.number for one in self.revisions(name)), default=0)
        while (path := self.folder / "revisions" / f"{name}.r{number:04d}.png").exists():
            number += 1
        _write(path, mask)
        if not (photo := self.folder / "images" / f"{name}.png").exists():
            _write(photo, image)
        self._log({"name": name, "revision": number} | dict(about))
        return number

    def _log(self, entry: Mapping[str, Any]) -> None:
        """Append a line. One that was cut short before it is ended first."""
        with (self.folder / LOG).open("a+b") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                torn = file.read(1) != b"\n"
                file.write(b"\n" if torn else b"")
            file.write(json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _repair(self) -> None:
        """Complete what a killed program has half written: an image without its mask, or the newest revision not in masks/."""
        for image in (self.folder / "images").glob("*.png"):
            if not (mask := self.folder / "masks" / image.name).exists():
                kept = sorted((self.folder / "revisions").glob(f"{glob.escape(image.stem)}.r*.png"))
                if kept:  # without a revision the image is not of this program, which writes the revision first
                    _write(mask, kept[-1].read_bytes())
        for one in self.revisions()[-1:]:
            mask = self.folder / "masks" / f"{one.name}.png"
            saved = self.folder / "revisions" / f"{one.name}.r{one.number:04d}.png"
            named_plainly = PurePath(one.name).name == one.name
            # A mask that was edited by hand is newer than its revision.
            if (
                named_plainly
                and mask.is_file()
                and saved.is_file()
                and mask.stat().st_mtime_ns < saved.stat().st_mtime_ns
            ):
                _write(mask, saved.read_bytes())


def _revision(line: str) -> Revision | None:
    try:
        entry = json.loads(line)
        return Revision(str(entry["name"]), int(entry["revision"]), str(entry["author"]), str(entry["time"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path, durable=True) as file:
        file.write(data)


def _read_indexed(path: Path) -> NDArray[np.uint8] | None:
    """Read the class ids of a mask that `encode_png` wrote; None for another file."""
    try:
        with av.open(str(path)) as container:
            image = next(container.decode(video=0))
    except (OSError, StopIteration, av.FFmpegError):
        return None
    return plane_array(image, 0).copy() if image.format.name == "pal8" else None
