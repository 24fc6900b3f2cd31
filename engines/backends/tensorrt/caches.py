"""Caches of TensorRT between runs: kernel timings of a build, and kernels that TensorRT for RTX compiles at run time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cliprl.engines.atomic_write import atomic_write
from cliprl.engines.cache.cache_store import RUNTIME, TIMING_FILE

DIGEST = hashlib.sha256().digest_size


def read_sidecar(path: Path | None, tie: bytes = b"") -> bytes:
    """Return the data of a sidecar file; b"" if it is missing, damaged, or was written with another `tie`."""
    try:
        sealed = path.read_bytes() if path else b""
    except OSError:
        return b""
    digest, data = sealed[:DIGEST], sealed[DIGEST:]
    return data if digest == _digest(tie, data) else b""


def write_sidecar(path: Path | None, data: bytes, tie: bytes = b"") -> None:
    """Write a sidecar file for this `tie`; nothing happens if it can't be written."""
    if path is None:
        return
    with suppress(OSError), atomic_write(path, shared=True) as file:
        file.write(_digest(tie, data) + data)


def _digest(tie: bytes, data: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(tie).digest() + data).digest()


def timing_path(sidecar: Path, identity: Mapping[str, str]) -> Path:
    """The path of the timings for one version on one GPU (`identity`): one file for all engines of a folder."""
    words = (f"{name}_{value}" for name, value in identity.items())
    return sidecar.with_name(re.sub(r"[^A-Za-z0-9_.]+", "_", "-".join(words)) + TIMING_FILE)


def runtime_path(sidecar: Path, network: str) -> Path:
    """The path of the kernels of one network of a cache entry."""
    return sidecar.with_name(f"{sidecar.name}.{network}{RUNTIME}")


class Timings:
    """How fast a GPU ran each kernel that a build tried: the next build on the same GPU need not try it again."""

    def __init__(self, config: Any, path: Path | None) -> None:
        self._config, self._path = config, path
        self._kept = read_sidecar(path)
        # The builder wants it alive until the engine is built.
        self._cache = self._attached(self._kept) or self._attached(b"")

    def _attached(self, data: bytes) -> Any:
        """A timing cache that the builder accepts, or None: one of another version or GPU it refuses."""
        if self._path is None:
            return None
        cache = self._config.create_timing_cache(data)
        return cache if cache is not None and self._config.set_timing_cache(cache, ignore_mismatch=False) else None

    def save(self) -> None:
        """Keep what the build has measured."""
        cache = self._config.get_timing_cache() if self._cache is not None else None
        self._kept = _saved(cache, self._path, self._kept)


class Kernels:
    """The kernels that TensorRT for RTX makes of a plan for this GPU and these shapes, in a file tied to the plan.

    `taken` is true if those of an earlier run are used. TensorRT refuses ones of another version, GPU or driver.
    """

    def __init__(self, config: Any, path: Path | None, plan: bytes) -> None:
        self._path, self._tie = path, hashlib.sha256(plan).digest() if path else b""
        self._seen: set[Hashable] = set()
        self._cache = config.create_runtime_cache() if path else None
        kept = read_sidecar(path, self._tie)
        self.taken = bool(kept) and self._cache is not None and bool(self._cache.deserialize(kept))
        self._kept = kept if self.taken else b""
        if self._cache is not None and not config.set_runtime_cache(self._cache):
            self._cache, self.taken = None, False

    def save(self, shapes: Hashable) -> None:
        """Keep what there is now, once for each combination of shapes: others ask for other kernels."""
        if shapes not in self._seen:
            self._seen.add(shapes)
            self._kept = _saved(self._cache, self._path, self._kept, self._tie)


def _saved(cache: Any, path: Path | None, before: bytes, tie: bytes = b"") -> bytes:
    """Write a cache, where there is one with something new in it; gives what the file should hold now."""
    memory = cache.serialize() if cache is not None else None
    data = bytes(memory) if memory is not None else b""
    if not data or data == before:
        return before
    write_sidecar(path, data, tie)
    return data
