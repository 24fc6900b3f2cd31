"""The outputs of a run: what they are called by default, and whether they may be written where they are to go."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cliprl.engines import UsageError
from cliprl.pipeline.cli.output_registry import OutputRegistry
from cliprl.pipeline.sinks.atomic_file import check_name
from cliprl.pipeline.sinks.factory import NULL
from cliprl.pipeline.sinks.labels.mask_folder import own_files
from cliprl.pipeline.sinks.network.network_sink import PLAYLIST, is_url
from cliprl.pipeline.sinks.network.virtual_camera import DEVICES
from cliprl.pipeline.sinks.places import check_holds_no_input, check_not_an_input, is_folder
from cliprl.pipeline.sources.images.image_list import is_pattern

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")
STDIN = "-"


def default_output(source: str) -> str:
    """A video beside a local input, in the current folder for anything else. An existing file is a file, whatever its name.

    Raises UsageError where the input is a folder, or has no name.
    """
    path = Path(source)
    is_file = os.path.exists(source) and not source.startswith("/dev/")
    if not is_file and source == STDIN:
        return "stdin_overlay.mp4"
    if not is_file and source.startswith("demo:"):
        return "demo_overlay.mp4"
    if not is_file and ("://" in source or source.startswith("/dev/")):
        stem = Path(source.split("?")[0].rstrip("/")).stem
        return f"{stem or 'stream'}_overlay.mp4"
    if not is_file and is_pattern(path.name):
        folder = path.parent if path.parent.name else Path.cwd() / path.parent
        return str(folder.with_name(f"{folder.name or 'frames'}_overlay.mp4"))
    check_source_name(source)
    suffix = path.suffix.lower() if path.suffix.lower() in VIDEO_SUFFIXES else ".mp4"
    return str(path.with_name(f"{path.stem}_overlay{suffix}"))


def check_source_name(source: str) -> None:
    """Raise UsageError for an input without a name, and for a folder."""
    if not source:
        raise UsageError("the input has an empty name: name a video, pictures, a camera or a stream")
    if os.path.isdir(source):
        pictures = Path(source) / "*.png"
        raise UsageError(
            f"'{source}' is a folder: name a video file in it, or write '{pictures}' for the pictures in it"
        )


@dataclass(frozen=True, slots=True)
class Place:
    """An output as it was `named`, and where that is."""

    named: str
    path: Path
    folder: bool = False

    @property
    def real(self) -> Path:
        """The path without links."""
        return Path(os.path.realpath(self.path))

    def is_same(self, other: Place) -> bool:
        """Whether both are one file or folder, under whatever names."""
        try:
            return self.real == other.real or self.path.samefile(other.path)
        except OSError:
            return False


class Outputs:
    """The local files and folders that a run is to write: video, annotations, masks, playlists, a trace, and recordings."""

    def __init__(
        self, source: str, targets: Sequence[str], *, trace: Path | None = None, recordings: Path | None = None
    ) -> None:
        self._source = source
        self._places = list(_places(targets))
        if trace is not None:
            self._places.append(Place(str(trace), trace))
        self._recordings = [] if recordings is None else [Place(str(recordings), recordings, folder=True)]
        self._registry = OutputRegistry()

    def check(self, *, overwrite: bool) -> None:
        """Raise UsageError where an output is or holds an input, two are one, or one exists that is not to be replaced.

        Without `overwrite` only what an earlier run made of the same input is replaced.
        """
        try:
            for place in self._places:
                check_name(place.path)
                check_not_an_input(place.path, self._source)
                if place.folder:
                    check_holds_no_input(place.path, self._source)
            self._check_each_other()
            if not overwrite:
                for place in self._places:
                    for path in _existing(place):
                        self._check_known(path)
        except OSError as error:
            raise UsageError(f"can't look at '{error.filename}' ({error.strerror}): choose another place") from error

    def note(self) -> None:
        """After the run: note what it has written, so that it may be replaced by a run of the same input."""
        for place in self._places:
            if place.path.is_file() or place.folder:
                self._registry.note(place.path, self._source)

    def _check_each_other(self) -> None:
        places = [*self._places, *self._recordings]
        for i, one in enumerate(places):
            for other in places[:i]:
                if one.is_same(other):
                    raise UsageError(f"'{other.named}' and '{one.named}' are the same output: give each its own name")
                for outer, inner in ((one, other), (other, one)):
                    if outer.folder and outer in self._places and inner.real.is_relative_to(outer.real):
                        raise UsageError(
                            f"the output '{inner.named}' lies in '{outer.named}', which is for masks alone: choose another place"
                        )

    def _check_known(self, path: Path) -> None:
        if not self._registry.knows(path, self._source):
            if path.is_dir():
                own_files(path)  # of a folder with other files in it that is to be told, for --overwrite does not help
            raise UsageError(
                f"'{path}' exists, and is not known as an earlier output of this input: give --overwrite to replace it, "
                "or choose another name with -o"
            )


def _places(targets: Iterable[str]) -> Iterator[Place]:
    for target in targets:
        if not target:
            raise UsageError("an output has an empty name: give one with -o")
        if target != NULL and not target.startswith(DEVICES) and not is_url(target):
            yield Place(target, Path(target), is_folder(target))


def _existing(place: Place) -> list[Path]:
    """The files that writing an output would replace. Devices and pipes are none; a folder is what its masks' list is."""
    path = place.path
    if place.folder:
        return [path] if path.is_dir() and any(path.iterdir()) else []
    found = [path] if path.is_file() else []
    if path.name.lower().endswith(PLAYLIST) and path.parent.is_dir():
        segment = re.compile(rf"{re.escape(path.name[: -len(PLAYLIST)])}\d+\.ts")
        found += sorted(p for p in path.parent.iterdir() if segment.fullmatch(p.name))
    return found
