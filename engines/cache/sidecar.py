"""Files beside the compiled engines that make a build or a start quicker. Nothing depends on them: any may be lost."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from cliprl.engines.atomic_write import atomic_write

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
