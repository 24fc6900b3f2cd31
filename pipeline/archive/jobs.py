"""Jobs of an archive and their replies, as JSON values that reach any process; the videos of a folder, and their identity."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from cliprl.engines import UsageError

# Names of video files, and of audio files, which are listed with the reason why they can't be processed.
_VIDEO = (
    *(".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".mpv", ".vob", ".ts", ".mts"),
    *(".m2ts", ".m2t", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".ogm", ".3gp", ".3g2", ".mxf", ".dv", ".nut", ".mjpg"),
    *(".mjpeg", ".h264", ".264", ".h265", ".265", ".hevc", ".y4m", ".divx", ".rm", ".rmvb"),
)
_AUDIO = (".m4a", ".mp3", ".wav", ".aac", ".ogg", ".oga", ".opus", ".flac", ".wma", ".ac3", ".aif", ".aiff", ".mka")


@dataclass(frozen=True, slots=True)
class Listing:
    """The videos of a folder, sorted, with their bytes, and other files; paths in the folder, with "/"."""

    videos: dict[str, int]
    others: list[str]


def find_videos(folder: Path) -> Listing:
    """List the videos in a folder and its subfolders, by their suffix. Hidden files and folders are left out.

    A link to a file is followed, a link to a folder is not. A subfolder that can't be read, or has just gone, is listed as
    a video of 0 bytes, "NAME/": it fails, and the rest is processed. Raises UsageError if there is no such folder, it can't be
    read, or it holds no video.
    """
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"'{folder}' {what}: name the folder that holds the videos")
    videos, others = dict[str, int](), list[str]()

    def note(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise UsageError(f"can't read the folder '{folder}' ({error.strerror}): give it read permission")
        videos[f"{Path(error.filename).relative_to(folder).as_posix()}/"] = 0

    for parent, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(parent, name)
            size = _size(path) if name.lower().endswith((*_VIDEO, *_AUDIO)) else None
            if size is None:
                others.append(path.relative_to(folder).as_posix())
            else:
                videos[path.relative_to(folder).as_posix()] = size
    if not videos:
        found = f"{len(others)} files, none of them a video" if others else "no files"
        raise UsageError(f"'{folder}' holds {found}: name a folder with videos, such as .mp4, .mkv or .avi")
    return Listing(videos, others)


def _size(path: Path) -> int | None:
    """Return the bytes of a file; 0 for a broken link; None for a pipe, a device or a folder."""
    try:
        found = path.stat()
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else None


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
