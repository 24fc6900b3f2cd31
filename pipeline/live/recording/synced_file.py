"""A file that is synced to the disk while it grows, and can be truncated to its valid part."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cliprl.pipeline.sinks.atomic_file import write_all


class SyncedFile:
    """A new file, for libav to write to, that is synced to the disk every `seconds`.

    After an error, all further data is discarded. `size` counts the bytes written.
    Raises OSError if the file can't be created, FileExistsError if the name is taken.
    """

    closed = False

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.size = path, 0
        self.error: OSError | None = None
        self._seconds, self._synced = seconds, 0.0
        self._file = path.open("xb", buffering=0)
        try:
            _sync_folder(path.parent)
        except OSError:
            self.cut(0)
            raise

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`. Raises OSError once; after that, data is discarded and counts as written."""
        if self.error is None:
            with self._keeping_error():
                self.size += write_all(self._file.write, data)
                if time.monotonic() - self._synced > self._seconds:
                    self._sync()
        return memoryview(data).nbytes

    def close(self) -> None:
        """Sync and close. Raises OSError if not everything was written; the file stays open then."""
        if self.error is not None:
            raise self.error
        with self._keeping_error():
            self._sync()
        self.closed = True
        self._file.close()

    def cut(self, size: int) -> bool:
        """Truncate the file to `size` bytes and close it; remove it if that is 0. Return whether it still exists."""
        self.closed = True
        kept = False
        with suppress(OSError), self._file:
            exists = os.fstat(self._file.fileno()).st_nlink > 0
            kept = exists and size > 0
            if exists and not kept:
                self.path.unlink(missing_ok=True)
            elif kept:
                self._file.truncate(size)
                os.fsync(self._file.fileno())
        return kept

    def _sync(self) -> None:
        os.fdatasync(self._file.fileno())
        if not self.path.exists():
            raise OSError(errno.ENOENT, "the file was removed while it was recorded")
        self._synced = time.monotonic()

    @contextmanager
    def _keeping_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            raise


def _sync_folder(path: Path) -> None:
    """Sync a folder to the disk, so that a new name in it is durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
