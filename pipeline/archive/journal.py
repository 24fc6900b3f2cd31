"""The state of an archive on disk. Each file is complete or absent, whatever process is killed at whatever moment.

OUT/index.html, OUT/events.parquet     made at the end of a run from the records
OUT/videos/PATH/                       the outputs of a video, moved here together when all are complete
OUT/.archive/settings.json             what determines the outputs
OUT/.archive/lock                      held by the driver and, inherited, by its worker processes
OUT/.archive/records/CONTENT.json      one file per content that is done or has failed; written last
OUT/.archive/parts/CONTENT.parquet     the events of a video
OUT/.archive/work                      what is being written; emptied at the start
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cliprl.engines import UsageError, explained
from cliprl.pipeline.archive.settings import ArchiveSettings, differences

FORMAT_VERSION = 1
_HOME = ".archive"
# Seconds to wait for the worker processes of a driver that was killed.
ORPHAN_SECONDS = 15.0


_NUMBER = int | float
_COUNTS = ("length", "frames", "damaged", "instrument_frames", "low_confidence_frames")
# The fields of records that later runs read, by status, with their types.
_COMMON = {"video": str, "folder": str, "state": list}
_FIELDS: dict[str, dict[str, Any]] = {
    "done": {"outputs": list, **dict.fromkeys(_COUNTS, _NUMBER)},
    "failed": {"permanent": bool},
}


class Journal:
    """The folders and records of the archive `out`."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.videos = out / "videos"
        self._home = out / _HOME
        self._records, self._parts, self._work = (self._home / name for name in ("records", "parts", "work"))
        self.lock = -1

    def open(self, settings: ArchiveSettings) -> None:
        """Create the folders, take the lock, check the settings, and remove what killed processes left.

        Raises UsageError if the place can't be used, is in use, or was made with other settings.
        """
        with explained(f"can't write to '{self.out}'", "choose another place"):
            self._check_place()
            for folder in (self._records, self._parts, self._work, self.videos):
                folder.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(self._home / "lock", os.O_RDWR | os.O_CREAT, 0o666)
            self._take_lock()
            self._check_settings(settings)
            self.clean()

    def close(self) -> None:
        """Release the lock."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def clean(self) -> None:
        """Remove what killed processes left. Raises OSError."""
        for left in self._work.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _check_place(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"'{self.out}' is a file: name a folder for the results")
        if self.out.is_dir() and not self._home.is_dir() and any(self.out.iterdir()):
            raise UsageError(f"'{self.out}' holds files that are no archive: name a new or an empty folder")

    def _take_lock(self) -> None:
        deadline = time.monotonic() + ORPHAN_SECONDS
        while True:
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UsageError(
                        f"another cliprl-archive writes to '{self.out}': wait for its end, or choose another place"
                    ) from None
                time.sleep(0.1)
            except OSError:  # a file system without locks
                return
            else:
                return

    def _check_settings(self, settings: ArchiveSettings) -> None:
        path = self._home / "settings.json"
        now = {"format_version": FORMAT_VERSION, **settings.to_json()}
        try:
            kept = json.loads(path.read_bytes())
        except (OSError, ValueError):
            self._write(path, now)
            return
        if found := "; ".join(differences(kept, now)):
            raise UsageError(
                f"'{self.out}' was made with other settings ({found}): give the same ones, or choose another place with -o"
            )

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield all records, sorted by content. A damaged one is left out: its video is processed again."""
        for path in sorted(self._records.glob("*.json")):
            with suppress(OSError, ValueError):
                if _is_record(record := json.loads(path.read_bytes()), path.stem):
                    yield record

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Write the record of a content, in place of an earlier one. Raises OSError."""
        self._write(self._records / f"{record['content']}.json", record)

    def is_complete(self, record: Mapping[str, Any]) -> bool:
        """Whether all outputs of a video that is done are in place."""
        folder = self.out / record["folder"]
        return all((folder / name).exists() for name in record["outputs"])

    def part(self, content: str) -> Path:
        """Return the place of the events of a video in the table."""
        return self._parts / f"{content}.parquet"

    def new_folder(self) -> Path:
        """Create a folder for one attempt. Raises OSError."""
        folder = self._work / secrets.token_hex(8)
        folder.mkdir()
        return folder

    def publish(self, made: Path, folder: str) -> None:
        """Move a folder of outputs to its place, in place of an earlier one. Raises OSError."""
        place = self.out / folder
        place.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(5):
            try:
                made.rename(place)
                return
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            with suppress(FileNotFoundError):  # moved by another process that publishes the same content
                aside = self.new_folder()
                place.rename(aside / "replaced")
                shutil.rmtree(aside, ignore_errors=True)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(place))

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the archive under its name when it is complete. Raises OSError."""
        draft = self._work / f"{secrets.token_hex(8)}.txt"
        draft.write_bytes(text.encode("utf-8", "backslashreplace"))
        return draft.replace(self.out / name)

    def _write(self, path: Path, data: Mapping[str, Any]) -> None:
        draft = self._work / f"{secrets.token_hex(8)}.json"
        with draft.open("w", encoding="ascii") as file:
            json.dump(data, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)


def _is_record(record: Any, content: str) -> bool:
    """Whether a value is a record of `content` with all that later runs read."""
    if not isinstance(record, dict) or record.get("content") != content or record.get("status") not in list(_FIELDS):
        return False
    fields = _COMMON | _FIELDS[record["status"]]
    return all(isinstance(record.get(name), kind) for name, kind in fields.items())
