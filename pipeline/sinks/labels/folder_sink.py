"""The base of outputs that are folders: masks, frames, and data sets of both."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from cliprl.engines import UsageError
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.sinks.atomic_file import check_name, unwritable
from cliprl.pipeline.sinks.base import FileSink
from cliprl.pipeline.sinks.labels.json_fields import describe_class, describe_stream
from cliprl.pipeline.sinks.labels.mask_folder import MaskFolder, own_files, remove_own
from cliprl.pipeline.sinks.partial_names import reserve
from cliprl.pipeline.sinks.places import check_holds_no_input

FORMAT_VERSION = 2


class FolderSink(FileSink):
    """A folder of files, with `classes.json` as its manifest (see `MaskFolder`).

    The folder is made, or replaced at the end if all that is in it was written by an earlier run and not changed since; any
    other is refused. Until the end the files lie in `.NAME.partial` beside it.
    """

    def __init__(self, target: Path, spec: OutputSpec) -> None:
        """Make the partial folder. Raises UsageError if `target` can't become such a folder, CliprlError if the disk is full."""
        super().__init__(target)
        self.spec = spec
        self._final = Path(os.path.realpath(target))
        try:
            _check_folder(self._final, spec)
        except OSError as error:
            raise UsageError(f"can't read '{target}' ({error.strerror}): choose another folder") from error
        classes = [describe_class(i, one) for i, one in enumerate(spec.classes)]
        about = {"format_version": FORMAT_VERSION, "stream": describe_stream(spec.stream), "classes": classes}
        try:
            reserved = reserve(self._final, folder=True)
            self._work, self._handle = reserved.path, reserved.handle
            self.notes += reserved.notes
            self._masks = MaskFolder(self._work, about)
        except OSError as error:
            raise unwritable(target, error) from error

    def about(self) -> dict[str, Any]:
        """Return what the manifest holds besides the list of files."""
        return {}

    def _finish(self, whole: bool) -> None:
        self._masks.seal(self.about())
        if whole:
            if self._final.exists() and (old := remove_own(self._final)):
                self.notes.append(f"'{self.target}' held {old} files of an earlier run, which these replace")
            self._work.replace(self._final)
        os.close(self._handle)

    def _abandon(self) -> None:
        """Every file is whole already."""
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


def replaced_folder(folder: Path) -> list[Path]:
    """The folder itself, if it holds anything that writing to it would replace."""
    return [folder] if folder.is_dir() and any(folder.iterdir()) else []
