"""The outputs of a run: their default names, checks of their places, and the options of label files among them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cliprl.engines import UsageError
from cliprl.pipeline.cli.output_registry import OutputRegistry
from cliprl.pipeline.core.interfaces import LabelStyle
from cliprl.pipeline.sinks.atomic_file import check_name
from cliprl.pipeline.sinks.labels.mask_folder import own_files
from cliprl.pipeline.sinks.places import check_holds_no_input, check_not_an_input, is_folder
from cliprl.pipeline.sinks.registry import SINKS, find_sink, replaced_file, writes_files
from cliprl.pipeline.sources.errors import redact
from cliprl.pipeline.sources.images.image_list import is_pattern
from cliprl.pipeline.sources.registry import find_source
from cliprl.pipeline.sources.stdin import is_stdin


def default_output(source: str) -> str:
    """Return the default output: a video beside a local input, in the current folder for all others.

    Raises UsageError if the input is a folder, or has no name.
    """
    path = Path(source)
    is_file = os.path.exists(source) and not source.startswith("/dev/")
    if is_stdin(source):
        return "stdin_overlay.mp4"
    kind = find_source(source)
    prefix = next((p for p in kind.prefixes if p.endswith(":") and source.startswith(p)), None) if kind else None
    if prefix and not is_file:
        return f"{prefix[:-1]}_overlay.mp4"
    if not is_file and ("://" in source or source.startswith("/dev/")):
        stem = Path(redact(source).replace("***", "x").split("?")[0].rstrip("/")).stem
        return f"{stem or 'stream'}_overlay.mp4"
    if not is_file and is_pattern(path.name):
        folder = path.parent if path.parent.name else Path.cwd() / path.parent
        return str(folder.with_name(f"{folder.name or 'frames'}_overlay.mp4"))
    check_source_name(source)
    sink = find_sink(path.name)
    suffix = path.suffix.lower() if path.suffix and sink and sink.is_video else ".mp4"
    return str(path.with_name(f"{path.stem}_overlay{suffix}"))


def check_source_name(source: str) -> None:
    """Raise UsageError for an input without a name, and for a folder."""
    if not source:
        raise UsageError("the input has an empty name: name a video, images, a camera or a stream")
    if os.path.isdir(source):
        images = Path(source) / "*.png"
        raise UsageError(f"'{source}' is a folder: name a video file in it, or write '{images}' for the images in it")


@dataclass(frozen=True, slots=True)
class Place:
    """An output: its name as given, and its path."""

    named: str
    path: Path
    folder: bool = False

    @property
    def real(self) -> Path:
        """The path without links."""
        return Path(os.path.realpath(self.path))

    def is_same(self, other: Place) -> bool:
        """Whether both are the same file or folder, also under different names."""
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
            if trace.is_dir():
                raise UsageError(f"the trace '{trace}' is a folder: name a file, as in {trace / 'trace.json'}")
            self._places.append(Place(str(trace), trace))
        self._recordings = [] if recordings is None else [Place(str(recordings), recordings, folder=True)]
        self._registry = OutputRegistry()

    def check(self, *, overwrite: bool) -> None:
        """Raise UsageError if an output is or holds an input, two are one, or one exists that is not to be replaced.

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
            raise UsageError(f"can't access '{error.filename}' ({error.strerror}): choose another place") from error

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
                            f"the output '{inner.named}' lies in '{outer.named}', which is for masks only: choose another place"
                        )

    def _check_known(self, path: Path) -> None:
        if not self._registry.knows(path, self._source):
            if path.is_dir():
                own_files(path)  # a folder with other files has its own error, because --overwrite does not help
            raise UsageError(
                f"'{path}' exists, and is not known as an earlier output of this input: give --overwrite to replace it, "
                "or choose another name with -o"
            )


def _places(targets: Iterable[str]) -> Iterator[Place]:
    for target in targets:
        if not target:
            raise UsageError("an output has an empty name: give one with -o")
        if writes_files(target):
            yield Place(target, Path(target), is_folder(target))


def _existing(place: Place) -> list[Path]:
    """List the files that writing an output would replace. Devices and pipes are not replaced."""
    kind = find_sink(place.named)
    return (kind.replaces if kind else replaced_file)(place.path)


def with_exported_frames(targets: Sequence[str], style: LabelStyle) -> tuple[tuple[str, ...], LabelStyle]:
    """Add a folder of frames beside the first label file of `targets`, and tell the label files.

    Raises UsageError if no target is a label file that refers to frames.
    """
    for target in targets:
        kind = find_sink(target)
        if kind is not None and kind.refers_to_frames:
            suffix = next(suffix for suffix in kind.suffixes if target.lower().endswith(suffix))
            folder = f"{target[: -len(suffix)]}.frames/"
            return (*targets, folder), replace(style, frames=Path(folder).name)
    raise _without_labels("--export-frames writes beside", frames=False)


def check_label_style(targets: Sequence[str], style: LabelStyle) -> None:
    """Raise UsageError for options of label files where no target is one."""
    kinds = [kind for target in targets if (kind := find_sink(target))]
    refers = any(kind.refers_to_frames for kind in kinds)
    if style.polygons and not refers:
        raise _without_labels("--polygons is for", frames=False)
    if style.names != LabelStyle().names and not refers and not any(kind.writes_frames for kind in kinds):
        raise _without_labels(f"--names {style.names} is for", frames=True)


def _without_labels(option: str, *, frames: bool) -> UsageError:
    """An error for an option of label files, or of folders of `frames` too."""
    kinds = [kind for kind in SINKS if kind.refers_to_frames or (frames and kind.writes_frames)]
    names = ", ".join(kind.shown for kind in kinds)
    return UsageError(f"{option} label files, and no output is one: give -o NAME with one of {names}")


def writes_frames(targets: Sequence[str]) -> str | None:
    """Return the first output that holds frames without the overlay; None if there is none."""
    kinds = ((target, find_sink(target)) for target in targets)
    return next((target for target, kind in kinds if kind and kind.writes_frames), None)
