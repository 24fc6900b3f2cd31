"""A folder of masks: an indexed PNG for each frame, and the classes."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path

from cliprl.engines import UsageError
from cliprl.pipeline.frame import Frame
from cliprl.pipeline.protocols import Scene
from cliprl.pipeline.segmentation import Segmentation
from cliprl.pipeline.sinks.base import FileSink
from cliprl.pipeline.sinks.describe import describe_class, describe_stream, frame_name
from cliprl.pipeline.sinks.labels import frame_labels
from cliprl.pipeline.sinks.png import encode_png

FORMAT_VERSION = 1
CLASSES = "classes.json"
_OURS = re.compile(r"\d{6,}_-?\d+\.png|classes\.json")


class MaskSink(FileSink):
    """`INDEX_PTS.png` for every segmented frame, in its size: pixel values are class ids, the palette the class colours.

    `classes.json` holds `format_version`, `stream` and `classes`. A frame without a segmentation gets no mask. The folder is
    made, or replaced at the end if an earlier run of this sink made it; one that holds anything else is refused. Until the
    end the masks lie in `.NAME.partial` beside it.
    """

    takes_pictures = False

    def __init__(self, target: Path, scene: Scene) -> None:
        """Make the partial folder. Raises UsageError where `target` can't become a folder of masks."""
        super().__init__(target)
        self._final = Path(os.path.realpath(target))
        _check_folder(self._final)
        self._work = self._final.with_name(f".{self._final.name}.partial")
        self._palette = [spec.color for spec in scene.classes]
        self._without = 0
        classes = [describe_class(i, spec) for i, spec in enumerate(scene.classes)]
        data = {"format_version": FORMAT_VERSION, "stream": describe_stream(scene.stream), "classes": classes}
        try:
            self._work.mkdir(exist_ok=True)
            _empty(self._work)
            (self._work / CLASSES).write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except OSError as error:
            with suppress(OSError):
                self._discard()
            raise UsageError(f"can't write masks to '{target}' ({error.strerror}): choose another folder") from error

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        if segmentation is None:
            self._without += 1
            return
        path = self._work / frame_name(frame)
        try:
            path.write_bytes(encode_png(frame_labels(frame, segmentation), self._palette))
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def _finish(self, whole: bool) -> None:
        if self._without:
            self.notes.append(f"{self._without} frames were not segmented and have no mask in '{self.target}'")
        if whole:
            if self._final.exists() and (old := _empty(self._final)):
                self.notes.append(f"'{self.target}' held {old} files of an earlier run, which these masks replace")
            self._work.replace(self._final)

    def _abandon(self) -> None:
        """Every mask is a whole file already."""

    def _discard(self) -> None:
        _empty(self._work)
        self._work.rmdir()

    def _place(self) -> Path | None:
        return self._work


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file: name a folder for the masks")
    if not folder.parent.is_dir():
        raise UsageError(
            f"there is no folder '{folder.parent}' for '{folder.name}': create it, or choose another place"
        )
    foreign = [] if not folder.exists() else [n for n in sorted(os.listdir(folder)) if not _OURS.fullmatch(n)]
    if foreign:
        raise UsageError(f"'{folder}' holds '{foreign[0]}', which is no mask: name a new or empty folder for the masks")


def _empty(folder: Path) -> int:
    """Remove the masks of an earlier run, and nothing else; returns how many files that were."""
    ours = [name for name in os.listdir(folder) if _OURS.fullmatch(name)]
    for name in ours:
        (folder / name).unlink()
    return len(ours)
