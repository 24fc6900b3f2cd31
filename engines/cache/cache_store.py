"""Store cache entries on disk so that damaged or incomplete ones are detected.

An entry is two files: a payload, and a sealed JSON sidecar with the fields that the payload was made for and its SHA-256.
Each file is written under another name and renamed, the sidecar last: an entry of a killed writer is either whole or detected.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliprl.engines.bundle.manifest import is_sealed, sealed_text

PAYLOAD, SIDECAR, PARTIAL, LOCK = ".engine", ".json", ".partial", ".lock"
# An entry's name ends with a hash of its fields.
_ENTRY = re.compile(r".+-[0-9a-f]{16}")
# Files that a backend keeps beside (see tensorrt/caches.py): ENTRY.NETWORK.runtime is part of an entry, a .timing serves all.
RUNTIME, TIMING_FILE = ".runtime", ".timing"


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """What a build gave: its parts by name, and a report that goes into the sidecar. A refused build has no parts."""

    parts: Mapping[str, bytes]
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EntryInfo:
    """An entry as a listing shows it: the fields it was made for, bytes on disk, and when it was last used (Unix time).

    The fields of a damaged one are empty.
    """

    name: str
    fields: Mapping[str, str]
    report: Mapping[str, Any]
    size: int
    used: float


class CacheStore:
    """The files of a folder of entries. Writing needs a lock, which is the caller's; reading needs none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exists(self, name: str) -> bool:
        """Whether there is an entry of this name, whole or not; none in a folder that may not be entered."""
        return os.path.exists(self.folder / (name + SIDECAR))

    def sidecar(self, name: str) -> dict[str, Any] | None:
        """A sidecar's content, or None where it is missing or not byte for byte what was written."""
        try:
            text = (self.folder / (name + SIDECAR)).read_bytes().decode("utf-8")
            data = json.loads(text)
            return data if isinstance(data, dict) and is_sealed(text) else None
        except (OSError, ValueError):
            return None

    def parts(self, name: str, sidecar: Mapping[str, Any]) -> dict[str, bytes] | None:
        """The payload's parts, or None where it is missing or not what the sidecar says."""
        try:
            payload = (self.folder / (name + PAYLOAD)).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(payload).hexdigest() != sidecar["sha256"]:
            return None
        parts, start = {}, 0
        for part, length in sidecar["parts"].items():
            parts[part] = payload[start : start + length]
            start += length
        return parts

    def touch(self, name: str) -> None:
        """Note that an entry was used now; where that can't be noted, it is not."""
        with suppress(OSError):
            os.utime(self.folder / (name + SIDECAR))

    def write(self, name: str, fields: Mapping[str, str], made: StoredEntry) -> None:
        """Write an entry over any of the same name. Raises OSError, and leaves none, where there is no room."""
        payload = b"".join(made.parts.values())
        data = {
            "fields": dict(fields),
            "report": dict(made.report),
            "parts": {part: len(blob) for part, blob in made.parts.items()},
            "sha256": hashlib.sha256(payload).hexdigest(),
        }
        try:
            self._write(name + PAYLOAD, payload)
            self._write(name + SIDECAR, sealed_text(data).encode())
        except OSError:
            self.remove(name)
            raise

    def _write(self, name: str, data: bytes) -> None:
        partial = self.folder / f".{name}{PARTIAL}"
        try:
            partial.write_bytes(data)
            partial.replace(self.folder / name)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise

    def remove(self, name: str) -> None:
        """Drop an entry, its sidecar first."""
        for path in (self.folder / (name + SIDECAR), self.folder / (name + PAYLOAD), *self._runtimes(name)):
            with suppress(OSError):
                path.unlink()

    def lock(self, name: str) -> Path:
        """The file whose lock a writer of an entry holds; it stays."""
        return self.folder / f".{name}{LOCK}"

    def clear(self) -> int:
        """Drop every entry, what killed writers left, and what all entries share; returns how many entries there were."""
        entries = self.entries()
        locks = (path.name.removesuffix(LOCK) for path in self._files(f".*{LOCK}"))
        # In a folder where no entry was ever written, files of the same endings are the user's.
        if any(entry.fields for entry in entries) or any(_ENTRY.fullmatch(name) for name in locks):
            self.sweep(0.0)
            for path in self._files(f"*{TIMING_FILE}"):
                with suppress(OSError):
                    path.unlink()
        for entry in entries:
            self.remove(entry.name)
        return len(entries)

    def sweep(self, age: float) -> None:
        """Remove what killed writers left, of at least this age in seconds: partial files, what has no sidecar."""
        payloads = (path for path in self._files(f"*{PAYLOAD}") if _ENTRY.fullmatch(path.stem))
        lost = [p for p in payloads if not self.exists(p.stem)]
        lost += [p for p in self._files(f"*{RUNTIME}") if not self.exists(Path(p.stem).stem)]
        for path in [*self._files(f".*{PARTIAL}"), *lost]:
            with suppress(OSError):
                if time.time() - path.stat().st_mtime >= age:
                    path.unlink()

    def entries(self) -> list[EntryInfo]:
        """All entries, the most recently used first."""
        found = []
        for path in self._files(f"*{SIDECAR}"):
            data = {"fields": {}, "report": {}} | (self.sidecar(path.stem) or {})
            if not _ENTRY.fullmatch(path.stem) or not (data["fields"] or self._has_parts(path.stem)):
                continue
            with suppress(OSError):
                others = [path.with_name(path.stem + PAYLOAD), *self._runtimes(path.stem)]
                size = path.stat().st_size + sum(p.stat().st_size for p in others if p.exists())
                found.append(EntryInfo(path.stem, data["fields"], data["report"], size, path.stat().st_mtime))
        return sorted(found, key=lambda entry: -entry.used)

    def _has_parts(self, name: str) -> bool:
        return (self.folder / (name + PAYLOAD)).exists() or self.lock(name).exists()

    def _runtimes(self, name: str) -> list[Path]:
        return self._files(f"{glob.escape(name)}.*{RUNTIME}")

    def _files(self, pattern: str) -> list[Path]:
        """The files of this pattern; none in a folder that may not be entered, such as one in another user's home."""
        try:
            return list(self.folder.glob(pattern))
        except PermissionError:
            return []
