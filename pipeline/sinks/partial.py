"""Files that are written beside their target and take its name when they are whole."""

from __future__ import annotations

import os
from pathlib import Path

from cliprl.engines import UsageError


class PartialFile:
    """A binary file `.NAME.partial.EXT` beside its target; `publish` renames it, so that an earlier target stays until then.

    Devices and pipes (`/dev/stdout`) can't be replaced and are written directly. After an error in `write` the file takes
    nothing more: what reached the disk stays as it is, however a library that holds the file tries to tidy up.
    """

    closed = False

    def __init__(self, target: Path) -> None:
        """Create the file. Raises UsageError where the target is a folder, or its place can't be written."""
        self.target = Path(os.path.realpath(target))
        check_place(self.target)
        direct = self.target.exists() and not self.target.is_file()
        self.path = self.target if direct else self.target.with_name(f".{self.target.stem}.partial{self.target.suffix}")
        try:
            self._file = self.path.open("wb", buffering=0)
        except OSError as error:
            raise UsageError(f"can't write '{target}' ({error.strerror}): choose another place") from error
        self.error: OSError | None = None

    @property
    def partial(self) -> Path | None:
        """The partial name while something bears it."""
        return self.path if self.path != self.target and self.path.exists() else None

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`, or raise OSError; after an error nothing more reaches the disk, and it counts as written."""
        rest = memoryview(data).cast("B")
        total = len(rest)
        while self.error is None and len(rest):
            try:
                rest = rest[self._file.write(rest) or 0 :]
            except OSError as error:
                self.error = error
                raise
        return total

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As a file's."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As a file's."""
        return self._file.tell()

    def publish(self) -> None:
        """Close the file and give it its name, in place of what bore it."""
        self._file.close()
        if self.path != self.target:
            self.path.replace(self.target)

    def keep(self) -> None:
        """Close the file and leave it under its partial name; an empty one is removed."""
        self._file.close()
        if self.path != self.target and self.path.stat().st_size == 0:
            self.path.unlink()

    def discard(self) -> None:
        """Close and remove the file."""
        self._file.close()
        if self.path != self.target:
            self.path.unlink(missing_ok=True)


def check_place(target: Path) -> None:
    """Raise UsageError where a file named `target` can't be made or replaced."""
    if target.is_dir():
        raise UsageError(f"'{target}' is a folder: name a file in it")
    if not target.parent.is_dir():
        raise UsageError(
            f"there is no folder '{target.parent}' for '{target.name}': create it, or choose another place"
        )
    if target.exists() and not os.access(target, os.W_OK):
        raise UsageError(f"'{target}' is write-protected: choose another name")
