"""A recording in segments, of which a power cut takes the last second at most."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import av

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.frame import Frame
from cliprl.pipeline.live.timeline import TIME_BASE
from cliprl.pipeline.protocols import StreamInfo
from cliprl.pipeline.sinks.encoder import VideoEncoder, live_encoder

# A fragment, which is written and forced onto the disk as one, holds so many seconds.
FRAGMENT = 0.5
_BUFFER = 1 << 16


class _SyncedFile:
    """A new file whose bytes are forced onto the disk at most every half fragment. What libav writes into."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        _sync_folder(path.parent)
        self._synced = 0.0

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`."""
        rest = memoryview(data).cast("B")
        total = len(rest)
        while len(rest):
            rest = rest[self._file.write(rest) or 0 :]
        if time.monotonic() - self._synced > FRAGMENT / 2:
            self.sync()
        return total

    def sync(self) -> None:
        """Force what was written onto the disk."""
        os.fdatasync(self._file.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self._file.close()


def _sync_folder(path: Path) -> None:
    """Force a new name in a folder onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Segments:
    """Writes pictures as H.264 into `FOLDER/TIME_WHAT.mp4`, a new file every `minutes`. Each plays as far as it was written.

    The files are MP4 in fragments of half a second with a key frame each. A change of the picture's size begins a new file.
    """

    def __init__(self, folder: Path, what: str, info: StreamInfo, *, minutes: float, crf: float, preset: str) -> None:
        self.paths: list[Path] = []
        self.frames = 0
        self._folder, self._what, self._info = folder, what, info
        self._seconds, self._crf, self._preset = minutes * 60, crf, preset
        self._file: _SyncedFile | None = None
        self._container: Any = None
        self._encoder: VideoEncoder | None = None
        self._begun, self._size = 0.0, (0, 0)

    def write(self, frame: Frame) -> None:
        """Add a picture; its time is in `TIME_BASE`. Raises CliprlError where the disk takes no more."""
        try:
            if self._encoder is None or self._is_over(frame):
                self.finish()
                self._begin(frame)
            assert self._encoder is not None
            self._container.mux(self._encoder.encode(frame))
            self.frames += 1
        except (OSError, av.FFmpegError) as error:
            reason = getattr(error, "strerror", None) or error
            raise CliprlError(
                f"can't record in '{self._folder}' ({reason}): free some space or choose another place"
            ) from error

    def finish(self) -> None:
        """End the file that is being written; the next picture begins another."""
        if self._encoder is None or self._file is None:
            return
        encoder, self._encoder = self._encoder, None
        try:
            self._container.mux(encoder.flush())
            self._container.close()
        finally:
            self._file.close()

    def _is_over(self, frame: Frame) -> bool:
        return frame.seconds - self._begun >= self._seconds or (frame.height, frame.width) != self._size

    def _begin(self, first: Frame) -> None:
        path = self._name()
        self._file = _SyncedFile(path)
        options = {
            "movflags": "empty_moov+default_base_moof+frag_keyframe",
            "video_track_timescale": str(TIME_BASE.denominator),
            "flush_packets": "1",
        }
        self._container = av.open(self._file, "w", format="mp4", container_options=options, buffer_size=_BUFFER)
        self._encoder = live_encoder(self._container, first, self._info, self._crf, self._preset, FRAGMENT)
        self._begun, self._size = first.seconds, (first.height, first.width)
        self.paths.append(path)

    def _name(self) -> Path:
        """A name that is not taken."""
        start = time.strftime("%Y-%m-%dT%H-%M-%S")
        path, number = self._folder / f"{start}_{self._what}.mp4", 1
        while path.exists():
            number += 1
            path = self._folder / f"{start}-{number}_{self._what}.mp4"
        return path


def recording_folder(path: Path) -> Path:
    """The folder to record in, made where it is not there. Raises UsageError where it can't be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't record in '{path}' ({error.strerror}): choose another place") from error
    if not os.access(path, os.W_OK):
        raise UsageError(f"can't record in '{path}': it is write-protected; choose another place")
    return path
