"""Partial names, under which outputs are written until they are complete. Each is new, and locked by one run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from cliprl.engines import UsageError

# Seconds to wait for another run that is choosing a name in the same folder.
_PATIENCE = 5.0
# What most file systems allow for a name, in bytes, where it can't be queried.
_LONGEST_NAME = 255
_MODE = 0o666


@dataclass(slots=True)
class Reserved:
    """A new file or folder at `path`, open as `handle` and locked for as long as that is.

    `leftovers`: partial outputs of the same target that were there before, of runs that have ended. They are left alone.
    """

    path: Path
    handle: int
    leftovers: list[Path] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """One-line remarks for the user."""
        return [
            f"'{path}' is the partial output of a run that did not end well: delete it if it is not needed"
            for path in self.leftovers
        ]


def reserve(target: Path, *, folder: bool = False) -> Reserved:
    """Create the partial file (or `folder`) of `target`, a resolved path, under a new name.

    Raises UsageError if another run is writing to the same target, OSError if nothing can be created.
    """
    leftovers: list[Path] = []
    with _locked_folder(target.parent):
        for number in count(1):
            path = partial_path(target, number, folder=folder)
            try:
                handle = _create(path, folder)
            except FileExistsError:
                if _is_locked(path):
                    raise UsageError(
                        f"'{target}' is being written by another run, or by a sink that is still open: wait for its end, or "
                        "choose another name"
                    ) from None
                leftovers.append(path)
                continue
            try_lock(handle)
            return Reserved(path, handle, leftovers)
    raise AssertionError("unreachable")


def partial_path(target: Path, number: int = 1, *, folder: bool = False) -> Path:
    """`.NAME.partial.EXT` beside the target (`.NAME.partial` of a folder), shortened to what the file system allows.

    The second is `.NAME.partial-2.EXT`. A shortened name holds a hash of the whole, so that two long names stay apart.
    """
    stem, suffix = (target.name, "") if folder else (target.stem, target.suffix)
    tail = f".partial{'' if number == 1 else f'-{number}'}{suffix}"
    room = longest_name(target.parent) - len(os.fsencode(f".{tail}"))
    if len(os.fsencode(stem)) > room:
        digest = f"~{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:8]}"
        while stem and len(os.fsencode(stem)) > room - len(digest):
            stem = stem[:-1]
        stem += digest
    return target.with_name(f".{stem}{tail}")


def longest_name(folder: Path) -> int:
    """How many bytes a name in `folder` may have."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):
        return _LONGEST_NAME


def _create(path: Path, folder: bool) -> int:
    if folder:
        path.mkdir()
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _MODE)


def _is_locked(path: Path) -> bool:
    """Whether a running process holds the file or folder at `path`. Nothing is followed, waited for, or changed."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return not try_lock(handle)
    finally:
        os.close(handle)


def try_lock(handle: int) -> bool:
    """Lock what is open as `handle`; False if another has it. File systems without locks count as free."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Lock `folder` while a name in it is chosen, so that no other run looks between creating a file and locking it."""
    handle = None
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        limit = time.monotonic() + _PATIENCE
        while handle is not None and not try_lock(handle) and time.monotonic() < limit:
            time.sleep(0.01)
        yield
    finally:
        if handle is not None:
            os.close(handle)
