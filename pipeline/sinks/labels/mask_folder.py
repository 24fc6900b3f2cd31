"""The manifest of a folder of masks or labels: only its files are removed, and only if they are unchanged."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cliprl.engines import UsageError
from cliprl.pipeline.sinks.json_text import json_text

CLASSES_FILE = "classes.json"
_FORMAT, _SEAL = "cliprl-masks", "seal"


class MaskFolder:
    """The files of one run's masks, as they are written, and `classes.json`, which lists them at the end.

    `classes.json` is the folder's manifest: `format` "cliprl-masks", `files`: {NAME: {"size": bytes, "sha256": hex}}, and
    `seal`, the SHA-256 of the rest, as which it is recognized itself.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Write `about` into `classes.json` of the empty `folder`. Raises OSError."""
        self._folder, self._about = folder, {"format": _FORMAT} | dict(about)
        self._files: dict[str, dict[str, Any]] = {}
        try:
            with (folder / CLASSES_FILE).open("x", encoding="utf-8") as file:
                file.write(json_text(self._about, indent=2) + "\n")
        except OSError:
            self.discard()
            raise

    def add(self, name: str, data: bytes) -> None:
        """Write a new file; `name` may have folders, "images/a.png". Raises OSError, and then leaves no part of it."""
        path = self._folder / name
        if path.parent != self._folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            try:
                file.write(data)
                file.flush()
            except OSError:
                path.unlink()
                raise
        self._files[name] = _facts(data)

    def discard(self) -> None:
        """Remove what was written, and the folder if it holds nothing else."""
        for name in (*self._files, CLASSES_FILE):
            (self._folder / name).unlink(missing_ok=True)
        _remove_empty(self._folder)
        with suppress(OSError):
            self._folder.rmdir()

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def seal(self, more: Mapping[str, Any]) -> None:
        """List the files, and `more`. Raises OSError, and leaves the list out, if there is no room."""
        draft = self._folder / f".{CLASSES_FILE}.new"
        try:
            draft.write_text(_sealed(self._about | dict(more) | {"files": self._files}), encoding="utf-8")
            draft.replace(self._folder / CLASSES_FILE)
        except OSError:
            draft.unlink(missing_ok=True)
            raise


def own_files(folder: Path) -> list[str]:
    """List the names in the folder of an earlier run, after checking that this run wrote each and none was changed.

    Raises UsageError, which names the first file that is another's.
    """
    names = sorted(_names(folder))
    listed = _listed(folder)
    if listed is None and _is_manifest(folder / CLASSES_FILE):
        raise _changed(folder / CLASSES_FILE)
    for name in names:
        if name == CLASSES_FILE and listed is not None:
            continue
        if listed is None or name not in listed:
            raise UsageError(
                f"'{folder}' holds '{name}', which no earlier run of this program is known to have written there: "
                "name a new or empty folder for the masks"
            )
        if not _is_unchanged(folder / name, listed[name]):
            raise _changed(folder / name)
    return names


def _changed(path: Path) -> UsageError:
    return UsageError(
        f"'{path}' was changed after an earlier run wrote it, so the folder is not replaced: "
        "name a new or empty folder for the masks"
    )


def _is_manifest(path: Path) -> bool:
    """Whether a file is a manifest of masks, changed or not."""
    try:
        data = json.loads(path.read_text(encoding="utf-8")) if path.is_file() and not path.is_symlink() else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and data.get("format") == _FORMAT


def remove_own(folder: Path) -> int:
    """Remove what `own_files` finds; returns how many files that were. Raises OSError if something is another's."""
    try:
        names = own_files(folder)
    except UsageError as error:
        raise FileExistsError(str(error).rpartition(": ")[0]) from error
    for name in sorted(names, key=lambda name: name == CLASSES_FILE):  # the list of what is this program's goes last
        (folder / name).unlink()
    _remove_empty(folder)
    return len(names)


def _names(folder: Path) -> Iterator[str]:
    """All files below a folder, with "/" between folders; of a folder with nothing in it, and of a link, the name."""
    for entry in os.scandir(folder):
        inner = list(_names(Path(entry.path))) if entry.is_dir(follow_symlinks=False) else []
        yield from (f"{entry.name}/{name}" for name in inner) if inner else (entry.name,)


def _remove_empty(folder: Path) -> None:
    """Remove the folders below `folder` that hold nothing."""
    for entry in sorted((path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink()), reverse=True):
        with suppress(OSError):
            entry.rmdir()


def _listed(folder: Path) -> dict[str, Any] | None:
    """What the folder's manifest lists; None if it has none, or not as it was written."""
    path = folder / CLASSES_FILE
    try:
        if path.is_symlink() or not path.is_file():
            return None
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
        whole = isinstance(data, dict) and data.get("format") == _FORMAT and _sealed(data) == text
        files = data["files"] if whole else None
    except (OSError, ValueError, KeyError, RecursionError):
        return None
    return files if isinstance(files, dict) else None


def _sealed(data: Mapping[str, Any]) -> str:
    bare = {key: value for key, value in data.items() if key != _SEAL}
    digest = hashlib.sha256(json_text(bare).encode()).hexdigest()
    return json_text(bare | {_SEAL: digest}, indent=2) + "\n"


def _facts(data: bytes) -> dict[str, Any]:
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _is_unchanged(path: Path, listed: Any) -> bool:
    try:
        found = path.lstat()
        same_size = stat.S_ISREG(found.st_mode) and isinstance(listed, dict) and listed.get("size") == found.st_size
        return same_size and _facts(path.read_bytes()) == listed
    except OSError:
        return False
