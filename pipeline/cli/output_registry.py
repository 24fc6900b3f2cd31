"""The outputs of earlier runs and their inputs: only these are replaced without --overwrite."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from cliprl.engines.atomic_write import atomic_write
from cliprl.engines.cache.user_cache import user_cache_folder
from cliprl.pipeline.sinks.labels.mask_folder import CLASSES_FILE
from cliprl.pipeline.sinks.places import input_files
from cliprl.pipeline.sources.registry import find_source

# Maximum number of entries of a few hundred bytes; the oldest are removed.
_LIMIT = 4096


class OutputRegistry:
    """A folder with a small file for each output: the input that it was made of, and how the output was left.

    An output whose size, times or inode have changed since is not known any more, and neither is one of an input that has
    changed. Where the folder can't be read or written, no output is known.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or user_cache_folder("outputs")

    def knows(self, target: Path, source: str) -> bool:
        """Whether `target` is as an earlier run of this very input left it."""
        entry = _entry(target, source)
        if entry is None:
            return False
        try:
            return bool(json.loads(self._path(target).read_bytes()) == entry)
        except (OSError, ValueError, RecursionError):
            return False

    def note(self, target: Path, source: str) -> None:
        """Note that a run has made `target` of this input. Where it can't be noted, it is not."""
        entry = _entry(target, source)
        if entry is None:
            return
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path(target), shared=True) as file:
                file.write(json.dumps(entry).encode("ascii"))
            self._drop_oldest()

    def _path(self, target: Path) -> Path:
        name = hashlib.sha256(os.fsencode(os.path.realpath(target))).hexdigest()
        return self._folder / f"{name}.json"

    def _drop_oldest(self) -> None:
        paths = list(self._folder.glob("*.json"))
        if len(paths) > _LIMIT:
            for path in sorted(paths, key=lambda path: path.stat().st_mtime)[: len(paths) - _LIMIT]:
                path.unlink()


def _entry(target: Path, source: str) -> dict[str, Any] | None:
    """Return the entry of an output. None if the input may differ the next time, or the output is missing."""
    made_of = _source_facts(source)
    if made_of is None:
        return None
    try:
        real = Path(os.path.realpath(target))
        return {"output": str(real), "left": _facts(real / CLASSES_FILE if real.is_dir() else real), "input": made_of}
    except OSError:
        return None


def _source_facts(source: str) -> list[Any] | None:
    """Return the identity of an input: its files and their state. None if its frames differ from run to run."""
    try:
        files = input_files(source)
        if files and all(file.is_file() for file in files):
            digest = hashlib.sha256()
            for file in files:
                digest.update(json.dumps([os.path.realpath(file), _facts(file)]).encode())
            return [os.path.realpath(source) if len(files) == 1 else len(files), digest.hexdigest()]
    except OSError:
        return None
    kind = find_source(source)
    return [source] if kind and kind.generated and not files else None


def _facts(path: Path) -> list[int]:
    """Device, inode, size, and the times at which content and state of a file last changed."""
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
