"""Unique names of the files of a list of images, for outputs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from cliprl.pipeline.core.frame import ImageFile

# Bytes of the longest stem: file systems allow names of 255, and ".png" follows. Of a stem that is too long the first are kept.
_LONGEST, _CUT = 255 - len(".png"), 200


def image_files(paths: Sequence[Path]) -> list[ImageFile]:
    """The name and the stem of each file of a list, see `ImageFile`.

    No two stems are the same, upper and lower case apart, and each is short enough for the name of a mask.
    """
    folder = os.path.commonpath([os.path.abspath(path.parent) for path in paths])
    names = [Path(os.path.abspath(path)).relative_to(folder).as_posix() for path in paths]
    for stem_of in (_stem, _base, _flat):
        stems = [stem_of(name) for name in names]
        is_short = all(len(os.fsencode(stem)) <= _LONGEST for stem in stems)
        if is_short and len({stem.casefold() for stem in stems}) == len(names):
            break
    else:
        stems = [f"{i:06d}_{os.fsdecode(os.fsencode(_stem(name))[:_CUT])}" for i, name in enumerate(names)]
    return [ImageFile(name, stem) for name, stem in zip(names, stems, strict=True)]


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _base(name: str) -> str:
    return PurePosixPath(name).name


def _flat(name: str) -> str:
    return name.replace("/", "_")
