"""Files that are written beside their target and get its name when they are complete."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cliprl.engines import CliprlError, UsageError
from cliprl.engines.cli.signals import interruptible
from cliprl.pipeline.sinks.partial_names import Reserved, longest_name, reserve

# Identifies a file and its state: device, inode, size and time of the last change.
Identity = tuple[int, int, int, int]


def write_all(write: Callable[[memoryview], int | None], data: bytes | memoryview) -> int:
    """Write all of `data` by calls of `write`, which may take a part of it each time. Return its length in bytes."""
    rest = memoryview(data).cast("B")
    total = len(rest)
    while len(rest):
        rest = rest[write(rest) or 0 :]
    return total


# The name of standard output where an output is a file.
STDOUT = "stdout:"


class PartialFile:
    """A binary file `.NAME.partial.EXT` beside its target; `publish` renames it, so that an earlier target stays until then.

    No other file is touched: the partial name is new and held by this run alone (see `reserve`), and a target that appeared or
    changed since is not replaced. Devices, pipes and standard output (`STDOUT`) are written directly. After an
    error in `write` the file takes nothing more: what reached the disk stays as it is, however a library that holds the file
    tries to tidy up.
    """

    closed = False

    def __init__(self, target: Path) -> None:
        """Create the file. Raises UsageError if the target is a folder, is being written, or can't be written."""
        self.target = Path(os.path.realpath(target))
        self._found: Identity | None = None
        self.notes: list[str] = []
        try:
            if str(target) == STDOUT:
                self.target, reserved = target, Reserved(target, os.dup(1))
            else:
                check_place(self.target)
                self._found = file_identity(self.target)
                direct = self._found is not None and not stat.S_ISREG(self.target.stat().st_mode)
                reserved = _opened(self.target) if direct else reserve(self.target)
        except OSError as error:
            raise unwritable(target, error) from error
        self.path, self.notes = reserved.path, reserved.notes
        self._file = open(reserved.handle, "wb", buffering=0)  # noqa: SIM115 (closed by the owner)
        self.error: OSError | None = None

    @property
    def partial(self) -> Path | None:
        """The partial name. None if there is no such file."""
        return self.path if self.path != self.target and self.path.exists() else None

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`, or raise OSError; after an error nothing more reaches the disk, and it counts as written."""
        try:
            return write_all(self._file.write, data) if self.error is None else memoryview(data).nbytes
        except OSError as error:
            self.error = error
            raise

    def seekable(self) -> bool:
        """Return whether what was written can be changed; false for a pipe."""
        return self._file.seekable()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Do what a file's method does."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Do what a file's method does."""
        return self._file.tell()

    def publish(self) -> None:
        """Close the file and give it its name, in place of what bore it.

        Raises FileExistsError, and keeps the partial name, if another program made or changed the target meanwhile.
        """
        if self.path != self.target:
            try:
                publish(self.path, self.target, self._found)
            except OSError as error:
                self.error = error
                if isinstance(error, FileNotFoundError):
                    raise FileNotFoundError(
                        errno.ENOENT, "it, or its folder, was removed while it was written"
                    ) from error
                raise
        self._file.close()

    def keep(self) -> None:
        """Close the file and leave it under its partial name; an empty one is removed."""
        self._file.close()
        with suppress(FileNotFoundError):
            if self.path != self.target and self.path.stat().st_size == 0:
                self.path.unlink()

    def discard(self) -> None:
        """Close and remove the file."""
        if self.path != self.target:
            self.path.unlink(missing_ok=True)
        self._file.close()


def _opened(target: Path) -> Reserved:
    """Open a device or a pipe, which may wait for a reader."""
    with interruptible():
        return Reserved(target, os.open(target, os.O_WRONLY))


def publish(path: Path, target: Path, found: Identity | None) -> None:
    """Rename a file to `target`, which was `found` there before. Raises FileExistsError if that is no longer so."""
    if file_identity(target) != found:
        raise FileExistsError(f"another program wrote '{target.name}' meanwhile")
    if found is None:
        try:
            os.link(path, target)  # fails if the name exists by now
        except FileExistsError:
            raise FileExistsError(f"another program wrote '{target.name}' meanwhile") from None
        except OSError:  # a file system without hard links
            path.replace(target)
        else:
            path.unlink()
    else:
        path.replace(target)


def file_identity(path: Path) -> Identity | None:
    """What is at `path`, without following it; None if nothing is."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def check_place(target: Path) -> None:
    """Raise UsageError if a file named `target` can't be made or replaced."""
    check_name(target)
    try:
        if target.is_dir():
            raise UsageError(f"'{target}' is a folder: name a file in it")
        if not target.parent.is_dir():
            raise UsageError(
                f"there is no folder '{target.parent}' for '{target.name}': create it, or choose another place"
            )
        if target.is_symlink():
            raise UsageError(f"'{target}' is a symbolic link that leads in a circle: remove it, or choose another name")
        if target.exists() and not os.access(target, os.W_OK):
            raise UsageError(f"'{target}' is write-protected: choose another name")
    except OSError as error:
        raise unwritable(target, error) from error


def unwritable(target: Path | str, error: OSError) -> CliprlError:
    """Return the error for an output that can't be created: a full disk is a failure, other reasons are misuse."""
    text = f"can't write '{target}' ({error.strerror})"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CliprlError(f"{text}: free some space or choose another place")
    return UsageError(f"{text}: choose another place")


def check_name(target: Path) -> None:
    """Raise UsageError for a name that is longer than its file system allows."""
    length, limit = len(os.fsencode(target.name)), longest_name(target.parent)
    if length > limit:
        raise UsageError(
            f"'{target.name}' is too long for the name of an output: {length} bytes, where {limit} are allowed. "
            "Give a shorter name with -o"
        )
