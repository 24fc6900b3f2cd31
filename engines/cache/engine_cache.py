"""The cache of compiled engines: entries are checked by hash, built once even by concurrent processes, and optional."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cliprl.engines.backends.engine import LogFunction, ignore_message
from cliprl.engines.cache.cache_store import CacheStore, EntryInfo, StoredEntry
from cliprl.engines.cache.user_cache import user_cache_folder
from cliprl.engines.errors import reason_of

LIMIT = 4 << 30
# The longest a build may take before others stop waiting for it, in seconds.
LOCK_SECONDS = 1800.0
# The age, in seconds, at which what a killed builder left behind is swept away.
STALE = 3600.0


class EngineCache:
    """A folder of compiled engines, of at most `limit` bytes; by default the user's own cache folder."""

    def __init__(self, folder: Path | None = None, limit: int = LIMIT) -> None:
        self.folder = folder or user_cache_folder("engines")
        self.limit = limit
        self._store = CacheStore(self.folder)

    def get_or_make(
        self, fields: Mapping[str, str], make: Callable[[], StoredEntry], log: LogFunction = ignore_message
    ) -> StoredEntry:
        """The entry made for exactly these fields, or what `make` gives, stored for the next time.

        Where several processes ask at once one makes it and the others wait. A folder that can't be written costs the
        caching and nothing else. `log` gets the reason why an entry is made.
        """
        found = self.read(fields, log)
        if found is not None:
            return found
        with self._locked(fields, log) as storing:
            found = self.read(fields) if storing else None
            if found is not None:
                return found
            made = make()
            if storing:
                self._keep(fields, made, log)
            return made

    def read(self, fields: Mapping[str, str], log: LogFunction = ignore_message) -> StoredEntry | None:
        """The entry for these fields, if there is a whole one. `log` gets the fields in which the nearest other entry differs."""
        name = entry_name(fields)
        data = self._store.sidecar(name)
        if data is None:
            self._explain(name, fields, log)
            return None
        differing = _difference(data["fields"], fields)
        if differing:
            log(differing)
            return None
        parts = self._store.parts(name, data)
        if parts is None:
            log(f"the cached engine {name} is damaged: compiling again")
            return None
        self._store.touch(name)
        return StoredEntry(parts, data["report"])

    def forget(self, fields: Mapping[str, str]) -> None:
        """Drop the entry for these fields, if there is one."""
        self._store.remove(entry_name(fields))

    def entries(self) -> list[EntryInfo]:
        """All entries, the most recently used first."""
        return self._store.entries()

    def clear(self) -> int:
        """Drop every entry; returns how many there were."""
        return self._store.clear()

    @contextmanager
    def _locked(self, fields: Mapping[str, str], log: LogFunction) -> Iterator[bool]:
        """Hold the entry's lock; gives False where there is no locking, and so no storing, in this folder."""
        # Imported here, because a warm start needs no lock.
        from filelock import FileLock, Timeout

        lock = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._store.lock(entry_name(fields)))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log("waiting for another process that compiles the same engine")
                lock.acquire(timeout=LOCK_SECONDS)
        except (OSError, NotImplementedError) as error:
            log(f"compiled engines can't be kept in {self.folder} ({_cause(error)}): compiling for this run alone")
            lock = None
        try:
            yield lock is not None
        finally:
            if lock is not None:
                lock.release()

    def _keep(self, fields: Mapping[str, str], made: StoredEntry, log: LogFunction) -> None:
        """Store an entry and make room for it; the lock is held."""
        name = entry_name(fields)
        try:
            self._store.write(name, fields, made)
        except OSError as error:
            log(f"the compiled engine can't be kept in {self.folder} ({_cause(error)}): it serves this run alone")
        self._store.sweep(STALE)
        total = 0
        for entry in self.entries():
            total += entry.size
            if total > self.limit and entry.name != name:
                self._store.remove(entry.name)

    def _explain(self, name: str, fields: Mapping[str, str], log: LogFunction) -> None:
        """Log how the nearest entry differs: the same bundle, backend and precision, made for something else."""
        if self._store.exists(name):
            log(f"the cached engine {name} is damaged: compiling again")
            return
        kin = [entry.fields for entry in self.entries() if entry.name.startswith(_label(fields) + "-") and entry.fields]
        if kin:
            nearest = min(kin, key=lambda other: sum(other.get(key) != value for key, value in fields.items()))
            log(_difference(nearest, fields))


class NotCachedError(Exception):
    """An entry that a `ReadOnlyCache` does not have."""


class ReadOnlyCache(EngineCache):
    """A cache that makes, stores and drops no entry."""

    def get_or_make(
        self, fields: Mapping[str, str], make: Callable[[], StoredEntry], log: LogFunction = ignore_message
    ) -> StoredEntry:
        """The entry made for exactly these fields. Raises NotCachedError if there is none."""
        found = self.read(fields)
        if found is None:
            raise NotCachedError(entry_name(fields))
        return found

    def forget(self, fields: Mapping[str, str]) -> None:
        """Raise NotCachedError: an entry that is no use is for another cache to drop and to make again."""
        raise NotCachedError(entry_name(fields))


def entry_name(fields: Mapping[str, str]) -> str:
    """The name of the entry for these fields: readable in front, a hash of all fields behind."""
    digest = hashlib.sha256(json.dumps(dict(fields), sort_keys=True).encode()).hexdigest()
    return f"{_label(fields)}-{digest[:16]}"


def _label(fields: Mapping[str, str]) -> str:
    words = (fields.get(key, "") for key in ("bundle", "backend", "precision"))
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", word) for word in words)


def _difference(kept: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """In words, which fields differ; "" where none does."""
    names = [name for name in {**kept, **wanted} if kept.get(name) != wanted.get(name)]
    told = ", ".join(f"{name} {_short(kept.get(name))}, now {_short(wanted.get(name))}" for name in names)
    return f"the cached engine was made for {told}: compiling again" if names else ""


def _short(value: str | None) -> str:
    """A value for a message: a hash is cut after 12 digits."""
    if value is None:
        return "unset"
    return value if len(value) < 64 or " " in value else f"{value[:12]}…"


def _cause(error: BaseException) -> str:
    return getattr(error, "strerror", None) or reason_of(error)
