"""Find the videos of a folder."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

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
