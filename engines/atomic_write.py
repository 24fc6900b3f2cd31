"""Write a file whole or not at all, and replace a folder at once."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path, *, shared: bool = False, durable: bool = False) -> Iterator[BinaryIO]:
    """Open a file that gets the name `path` at the end; after an error, a signal or a kill the former file is still there.

    `shared`: several processes may write it at once. `durable`: it outlasts a power failure. Raises OSError.
    """
    # The end of the name: with the whole of a long one it would be too long itself.
    partial = path.with_name(f".{path.name[-56:]}{f'.{os.getpid()}' if shared else ''}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


# Of <fcntl.h> and <linux/fs.h>.
_WORKING_FOLDER, _EXCHANGE = -100, 2


def replace_folder(made: Path, place: Path) -> None:
    """Rename the folder `made` to `place`, a path beside it, and remove the folder that was there.

    Where the system can exchange two names (Linux) there is no moment without a folder at `place`, whatever ends the process.
    Elsewhere an error or a signal puts the former folder back. Raises OSError.
    """
    if not place.is_dir():
        made.rename(place)
    elif _exchange(made, place):
        shutil.rmtree(made, ignore_errors=True)
    else:
        with tempfile.TemporaryDirectory(prefix=f".{place.name[-56:]}.", dir=place.parent) as beside:
            old = Path(beside) / "old"
            try:
                place.rename(old)
                made.rename(place)
            except BaseException:
                if not place.exists():
                    old.rename(place)
                raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two paths in one step. False where the file system or the C library has no such call."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(rename(_WORKING_FOLDER, os.fsencode(one), _WORKING_FOLDER, os.fsencode(other), _EXCHANGE) == 0)
