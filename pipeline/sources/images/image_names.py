"""How the files of a list of images are named in outputs, so that each leads back to one file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from cliprl.pipeline.core.frame import ImageFile


def image_files(paths: Sequence[Path]) -> list[ImageFile]:
    """The name and the stem of each file of a list, see `ImageFile`. No two stems are the same, upper and lower case apart."""
    folder = os.path.commonpath([os.path.abspath(path.parent) for path in paths])
    names = [Path(os.path.abspath(path)).relative_to(folder).as_posix() for path in paths]
    for stem_of in (_stem, _base, _flat):
        stems = [stem_of(name) for name in names]
        if len({stem.casefold() for stem in stems}) == len(names):
            break
    else:
        stems = [f"{i:06d}_{_stem(name)}" for i, name in enumerate(names)]
    return [ImageFile(name, stem) for name, stem in zip(names, stems, strict=True)]


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _base(name: str) -> str:
    return PurePosixPath(name).name


def _flat(name: str) -> str:
    return name.replace("/", "_")
