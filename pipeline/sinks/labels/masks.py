"""A folder of masks: an indexed PNG for each frame, and the classes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from cliprl.engines import UsageError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.atomic_file import check_name
from cliprl.pipeline.sinks.base import FileSink
from cliprl.pipeline.sinks.labels.frame_labels import frame_labels
from cliprl.pipeline.sinks.labels.indexed_png import encode_png
from cliprl.pipeline.sinks.labels.json_fields import describe_class, describe_frame, describe_stream, frame_name
from cliprl.pipeline.sinks.labels.mask_folder import MaskFolder, own_files, remove_own
from cliprl.pipeline.sinks.partial_names import reserve
from cliprl.pipeline.sinks.places import check_holds_no_input
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink

FORMAT_VERSION = 2


class MaskSink(FileSink):
    """A PNG for every segmented frame, in its size: pixel values are class ids, the palette the class colors.

    It is called `INDEX_PTS.png`; of an image file `NAME.png`, so that both sort alike. `classes.json` holds `format_version`,
    `stream`, `classes`, `frames`, which leads from each mask to its image file, and the list of the files (see `MaskFolder`);
    the schema "masks" describes it. A frame without a segmentation gets no mask. The folder is made, or replaced at the end if
    all that is in it was written by an earlier run and not changed since; any other is refused. Until the end the masks lie in
    `.NAME.partial` beside it.
    """

    needs_planes = False

    def __init__(self, target: Path, spec: OutputSpec) -> None:
        """Make the partial folder. Raises UsageError if `target` can't become a folder of masks."""
        super().__init__(target)
        self._final = Path(os.path.realpath(target))
        try:
            _check_folder(self._final, spec)
        except OSError as error:
            raise UsageError(f"can't read '{target}' ({error.strerror}): choose another folder") from error
        self._palette = [spec.color for spec in spec.classes]
        self._without = 0
        self._frames: list[dict[str, Any]] = []
        classes = [describe_class(i, spec) for i, spec in enumerate(spec.classes)]
        about = {"format_version": FORMAT_VERSION, "stream": describe_stream(spec.stream), "classes": classes}
        try:
            reserved = reserve(self._final, folder=True)
            self._work, self._handle = reserved.path, reserved.handle
            self.notes += reserved.notes
            self._masks = MaskFolder(self._work, about)
        except OSError as error:
            raise UsageError(f"can't write masks to '{target}' ({error.strerror}): choose another folder") from error

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        name = None
        if segmentation is None:
            self._without += 1
        else:
            name = self._name(frame)
            self._masks.add(name, encode_png(frame_labels(frame, segmentation), self._palette))
        self._frames.append({"mask_file_name": name} | describe_frame(frame))

    def _name(self, frame: Frame) -> str:
        """The mask's name; of a frame that is shown once more one with its index."""
        name = frame_name(frame)
        return f"{frame.index:06d}_{name}" if name in self._masks else name

    def _finish(self, whole: bool) -> None:
        if self._without:
            self.notes.append(f"{self._without} frames were not segmented and have no mask in '{self.target}'")
        self._masks.seal({"frames": self._frames})
        if whole:
            if self._final.exists() and (old := remove_own(self._final)):
                self.notes.append(f"'{self.target}' held {old} files of an earlier run, which these masks replace")
            self._work.replace(self._final)
        os.close(self._handle)

    def _abandon(self) -> None:
        """Every mask is a whole file already."""
        with suppress(OSError):
            os.close(self._handle)

    def _discard(self) -> None:
        self._masks.discard()
        os.close(self._handle)

    def _place(self) -> Path | None:
        return self._work


def _check_folder(folder: Path, spec: OutputSpec) -> None:
    check_name(folder)
    if not folder.name or _is_above(folder):
        raise UsageError(
            f"'{folder}' is or holds the folder that the program runs in: name another folder for the masks"
        )
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file: name a folder for the masks")
    if not folder.parent.is_dir():
        raise UsageError(
            f"there is no folder '{folder.parent}' for '{folder.name}': create it, or choose another place"
        )
    check_holds_no_input(folder, spec.stream.name)
    if folder.exists():
        own_files(folder)


def _is_above(folder: Path) -> bool:
    """Whether `folder` is the working directory or one above it."""
    try:
        return Path.cwd().is_relative_to(folder)
    except OSError:  # it was removed
        return False


def _replaced(folder: Path) -> list[Path]:
    return [folder] if folder.is_dir() and any(folder.iterdir()) else []


@register_sink(suffixes=("/",), shown="FOLDER/", help="masks as indexed PNG", replaces=_replaced)
def open_masks(target: str, spec: OutputSpec, settings: EncoderSettings) -> MaskSink:
    """Open a folder of masks."""
    return MaskSink(Path(target), spec)
