"""Jobs of an archive and their replies, as plain JSON values that reach any process; the identity of a video's content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

# Size, times of the last change of content and of state, inode: equal values mean unchanged content.
FileState = tuple[int, int, int, int]
ReplyKind = Literal["hashed", "done", "failed", "crashed", "stopped"]
# Bytes of a content hash.
_DIGEST = 20


@dataclass(frozen=True, slots=True)
class _Message:
    """A job or a reply, which crosses to another process as text."""

    def to_json(self) -> str:
        """Return the message as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read what `to_json` returned."""
        data = json.loads(text)
        return cls(**data | {"state": data["state"] and tuple(data["state"])})


@dataclass(frozen=True, slots=True)
class VideoJob(_Message):
    """One job: hash a video, or, if its `content` is known, run it.

    source: path of the file. video: the path in the archived folder, with "/". folder: folder of its outputs in the archive.
    state: the state of the file when it was hashed. attempts: earlier attempts whose process died.
    """

    source: str
    video: str
    content: str = ""
    folder: str = ""
    state: FileState | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class JobReply(_Message):
    """The outcome of a job.

    "hashed": `content` and `state` are known. "done": the outputs and `record` are written. "failed": the video can't be
    processed, for `reason`; `permanent` if the same content fails every time. "crashed": the process died, by `signal` if that is
    known. "stopped": no video can be processed, for `reason`.
    """

    kind: ReplyKind
    content: str = ""
    state: FileState | None = None
    record: Mapping[str, Any] | None = None
    reason: str = ""
    permanent: bool = False
    signal: int = 0


def file_state(path: str) -> FileState:
    """Return the state of a file. Raises OSError."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def content_hash(path: str) -> str:
    """Return the identity of a file's content: BLAKE2 of all bytes, and their number. Raises OSError."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST))
        return f"{digest.hexdigest()}-{file.tell()}"
