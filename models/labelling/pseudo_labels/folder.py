"""A `folder:` data set that grows frame by frame and survives the end of the program at any moment."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, CliprlError, UsageError, explained
from cliprl.engines.atomic_write import atomic_write
from cliprl.models.data.sample import IGNORE, Image
from cliprl.pipeline.sinks.labels.dataset_folder import classes_toml
from cliprl.pipeline.sinks.labels.indexed_png import encode_png

RECORDS, LABELS_FORMAT, LABELS_VERSION = "labels.jsonl", "cliprl-pseudo-labels", 1
# The color of unsure pixels in masks, and the most width and height of an overlay of the sheet.
UNSURE_COLOR, SHEET_SIZE = (255, 255, 255), (320, 1280)


class LabelFolder:
    """The images (as links), masks, `classes.toml`, `labels.jsonl` and overlays of a set of pseudo-labels.

    `labels.jsonl` begins with the settings; a line follows for each frame when its files are complete, so that a run with the
    same settings goes on where another one ended; what could not be read is tried again. One run at a time.
    """

    def __init__(
        self, folder: Path, classes: Sequence[ClassSpec], settings: Mapping[str, Any], consecutive: bool
    ) -> None:
        """Open the folder or make it.

        Raises UsageError for a folder that holds something else, was begun with other settings, or is being written.
        """
        self.folder, self._classes = folder, classes
        header = {"format": LABELS_FORMAT, "format_version": LABELS_VERSION, "settings": dict(settings)}
        self.done: dict[str, str | None] = {}  # the source of each labelled frame by its name
        self._unreadable: set[str] = set()
        with explained(f"'{folder}' can't be written", "give another folder with -o"):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / RECORDS).is_file() and any(folder.iterdir()):
                raise UsageError(f"'{folder}' holds something else than pseudo-labels: give a new folder with -o")
            self._file = (folder / RECORDS).open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UsageError(
                f"'{folder}' is being written by another run: wait for it, or give another with -o"
            ) from None
        try:
            self._resume(header)
            toml = f"consecutive = {str(consecutive).lower()}\nignore = [{IGNORE}]\n\n{classes_toml(classes)}"
            self._write(folder / "classes.toml", toml.encode())
        except BaseException:
            self.__exit__()
            raise

    def _resume(self, header: Mapping[str, Any]) -> None:
        """Read what an earlier run has finished, and cut off a line that it could not finish."""
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if not lines:
            self._file.truncate(0)
            self._append(header)
            return
        try:
            begun, records = json.loads(lines[0]), [json.loads(line) for line in lines[1:]]
            self.done = {record["name"]: record.get("source") for record in records if "error" not in record}
            self._unreadable = {record["name"] for record in records if "error" in record}
        except (ValueError, TypeError, KeyError):
            raise UsageError(f"'{self.folder / RECORDS}' is damaged: give a new folder with -o") from None
        if begun != json.loads(json.dumps(header)):
            raise UsageError(
                f"'{self.folder}' was begun with other settings ({differing(begun, header)}): "
                "repeat these, or give a new folder with -o"
            )
        self._file.truncate(len(whole))

    def add(
        self, name: str, file: Path | None, image: Image, labels: NDArray[np.uint8], record: Mapping[str, Any]
    ) -> None:
        """Write the files of a frame (H, W, 3) with labels (H, W), then its line. Raises CliprlError if the disk is full."""
        palette = [*(spec.color for spec in self._classes), *[UNSURE_COLOR] * (256 - len(self._classes))]
        colors = np.array(palette, np.uint8)
        self._write(self.folder / "masks" / f"{name}.png", encode_png(labels, palette))
        self._write(self.folder / "sheet" / f"{name}.jpg", overlay_jpeg(image, labels, colors))
        if file is None:
            png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
            self._write(self.folder / "images" / f"{name}.png", png.tobytes())
        else:
            self._link(self.folder / "images" / f"{name}{file.suffix}", file)
        self._append({"name": name, **record})
        self.done[name] = record.get("source")

    def skip(self, name: str, source: Path, reason: str) -> None:
        """Note a frame that can't be labelled, once."""
        if name not in self._unreadable:
            self._append({"name": name, "source": str(source.resolve()), "error": reason})
            self._unreadable.add(name)

    def has(self, name: str, source: Path) -> bool:
        """Return whether the frame of an image or a video is done. Raises UsageError if one of its name is of another file."""
        known = self.done.get(name)
        if known not in (None, str(source.resolve())):
            raise UsageError(
                f"'{self.folder}' holds '{name}' of '{known}', and '{source}' would have that name: give a new folder with -o"
            )
        return name in self.done

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records of all frames so far, one at a time; of one that was labelled after all, the labels alone."""
        with (self.folder / RECORDS).open(encoding="utf-8") as file:
            next(file, None)
            for record in map(json.loads, file):
                if "error" not in record or record["name"] not in self.done:
                    yield record

    def _link(self, place: Path, target: Path) -> None:
        """Link an image; copy it where the file system has no links."""
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            try:
                place.symlink_to(target.resolve())
            except OSError:
                self._write(place, target.read_bytes())
        except OSError as error:
            raise self._failed(error) from error

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file that is either whole or not there."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as file:
                file.write(data)
        except OSError as error:
            raise self._failed(error) from error

    def _append(self, record: Mapping[str, Any]) -> None:
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(json.dumps(record).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise self._failed(error) from error

    def write_page(self, text: Iterator[str]) -> None:
        """Write `index.html`, part by part."""
        try:
            with atomic_write(self.folder / "index.html") as file:
                file.writelines(part.encode("utf-8", "surrogateescape") for part in text)
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> CliprlError:
        return CliprlError(
            f"'{self.folder}' can't be written ({error.strerror}): free space and give the same command again, which goes on "
            f"after the {len(self.done)} frames that are done"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._file.close()


def differing(begun: Any, header: Mapping[str, Any]) -> str:
    """Return the settings in which two headers differ."""
    old = begun.get("settings", {}) if isinstance(begun, dict) else {}
    new: Mapping[str, Any] = json.loads(json.dumps(header["settings"]))
    return ", ".join(f"{key} {old.get(key)}" for key in new if old.get(key) != new[key])[:300] or "another format"


def overlay_jpeg(image: Image, labels: NDArray[np.uint8], colors: NDArray[np.uint8]) -> bytes:
    """Return a small overlay of the labels (H, W) on an image (H, W, 3) as JPEG."""
    height, width = labels.shape
    scale = min(SHEET_SIZE[0] / width, SHEET_SIZE[1] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    classes = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT)
    mixed = cv2.addWeighted(small, 0.5, colors[classes], 0.5, 0)
    shown = np.where((classes > 0)[..., None], mixed, small).astype(np.uint8)
    return cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
