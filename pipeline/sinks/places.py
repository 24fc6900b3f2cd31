"""Checks that no output replaces an input, and that no folder of masks contains one."""

from __future__ import annotations

import os
from pathlib import Path

from cliprl.engines import UsageError


def check_not_an_input(path: Path, *names: str | None) -> None:
    """Raise UsageError if `path` is one of the files of the inputs `names`, also under another name."""
    found = _file_id(path)
    if found is None:
        return
    for name in names:
        for file in input_files(name):
            if _file_id(file) == found:
                which = "the input itself" if str(file) == name else f"the input itself, '{file}' of '{name}'"
                raise UsageError(f"'{path}' is {which}: choose another name for the output")


def check_holds_no_input(folder: Path, *names: str | None) -> None:
    """Raise UsageError if `folder` is or contains a file of the inputs `names`, also through links."""
    resolved = Path(os.path.realpath(folder))
    for name in names:
        for file in input_files(name):
            for way in (Path(os.path.realpath(file)), Path(os.path.realpath(file.parent)) / file.name):
                if way.is_relative_to(resolved):
                    raise UsageError(f"'{folder}' holds the input '{file}': name another folder for the masks")


def input_files(name: str | None) -> list[Path]:
    """List the files of an input: the file itself, or those of its pattern. A camera or an address has none."""
    if not name:
        return []
    if os.path.exists(name):
        return [Path(name)]
    from cliprl.pipeline.sources.images.image_list import expand, is_pattern

    if "://" in name or not is_pattern(name):
        return []
    try:
        return expand(name)
    except UsageError:
        return []


def is_folder(target: str) -> bool:
    """Whether an output's name is that of a folder: by its last character, or because there is one."""
    return target.endswith("/") or os.path.isdir(target)


def _file_id(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
