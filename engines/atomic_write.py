"""Write a file whole or not at all."""

from __future__ import annotations

import os
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
