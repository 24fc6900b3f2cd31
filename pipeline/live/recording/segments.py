"""A recording in MP4 segments that lose at most the last second in a power cut, and half a second in a fault."""

from __future__ import annotations

import errno
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import av

from cliprl.engines import CliprlError, UsageError, explained, reason_of
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.live.clock import TIME_BASE
from cliprl.pipeline.live.recording.synced_file import SyncedFile
from cliprl.pipeline.sinks.video.coded_frame import CodedFrame, can_start
from cliprl.pipeline.sinks.video.live_encoding import HardwareEncoderError, LiveEncoding

# Seconds in a fragment, which is written and synced to the disk as a whole.
FRAGMENT = 0.5
_BUFFER = 1 << 16
_OPTIONS = {
    "movflags": "empty_moov+default_base_moof+frag_keyframe",
    "video_track_timescale": str(TIME_BASE.denominator),
    "flush_packets": "1",
}


class _Segment:
    """One MP4 file in fragments of `FRAGMENT` seconds, each starting with a key frame.

    `frames` counts the frames written; the first `safe` of them are in complete fragments on the disk, and `packets` have come
    out of the encoder.
    """

    def __init__(
        self, file: SyncedFile, first: Frame, info: StreamInfo, encoding: LiveEncoding, *, crf: float, preset: str
    ) -> None:
        self.frames = self.safe = self.packets = 0
        self.start, self.format = first.seconds, _frame_format(first)
        self.file, self._safe_bytes = file, 0
        # Any: PyAV's type for a file object requires more methods than PyAV uses.
        target: Any = file
        self._container = av.open(target, "w", format="mp4", container_options=_OPTIONS, buffer_size=_BUFFER)
        self._encoder = encoding.open(self._container, first, info, crf=crf, preset=preset, key_seconds=FRAGMENT)

    def write(self, frame: Frame) -> None:
        for packet in self._encoder.encode(frame):
            self._container.mux(packet)
            self.packets += 1
            if packet.is_keyframe:  # the fragment before it is complete
                self.safe, self._safe_bytes = self.frames, self.file.size
        self.frames += 1

    def finish(self) -> int:
        """Finish the file. Return the number of frames that a failed encoder kept."""
        packets = self._encoder.flush()
        self._container.mux(packets)
        self._container.close()
        self.file.close()
        kept = self.frames - self.packets - len(packets)
        self.frames -= kept
        self.safe = self.frames
        return kept

    def abandon(self) -> int:
        """Truncate the file after its last complete fragment. Return the number of lost frames."""
        kept = self.file.cut(self._safe_bytes if self.safe else 0)
        return self.frames - (self.safe if kept else 0)


class SegmentWriter:
    """Writes frames as H.264 to `FOLDER/TIME_KIND.mp4`, a new file every `minutes`. Each plays as far as it was written.

    Where frames share packets with other outputs, a file starts at the next key frame. A change of the frames' size, rotation,
    sample aspect, color or encoder starts a new file, and so does a fault; when the encoder of
    a GPU fails, the file before is finished, and nothing that it encoded is lost. `frames` counts
    the frames written, `lost` those that a fault destroyed. `safe`: frames of the current file are on the disk.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        info: StreamInfo,
        *,
        minutes: float,
        crf: float,
        preset: str,
        encoding: LiveEncoding | None = None,
    ) -> None:
        self.paths: list[Path] = []
        self.lost = 0
        self._encoding = encoding or LiveEncoding()
        self._folder, self._kind, self._info = folder, kind, info
        self._seconds, self._crf, self._preset = minutes * 60, crf, preset
        self._mount = next(p for p in (folder.absolute(), *folder.absolute().parents) if os.path.ismount(p))
        self._segment: _Segment | None = None
        self._finished = 0

    @property
    def frames(self) -> int:
        """Frames written and not lost."""
        return self._finished + (self._segment.frames if self._segment else 0)

    @property
    def safe(self) -> bool:
        """Whether frames of the current file are on the disk."""
        return self._segment is not None and self._segment.safe > 0

    @property
    def is_open(self) -> bool:
        """Whether there is a current file."""
        return self._segment is not None

    def write(self, frame: Frame) -> None:
        """Add a frame; its time is in `TIME_BASE`.

        Raises CliprlError if it can't be written for any reason. This frame is not counted then, those of the last fragment
        are counted as lost, and the next call starts a new file.
        """
        try:
            if self._segment is not None and self._is_over(self._segment, frame):
                self._finish(self._segment)
            try:
                self._add(frame)
            except HardwareEncoderError as error:
                self._encoding.refuse(error)
                if self._segment is not None:
                    self._finish(self._segment)
                self._add(frame)
        except Exception as error:
            self._abandon()
            raise self._failure(error) from error

    def _add(self, frame: Frame) -> None:
        if self._segment is None:
            self._segment = self._start(frame)
        self._segment.write(frame)

    def finish(self) -> bool:
        """Finish the current file. Return whether there was one. Raises as `write` does."""
        if self._segment is None:
            return False
        try:
            self._finish(self._segment)
            return True
        except Exception as error:
            self._abandon()
            raise self._failure(error) from error

    def _finish(self, segment: _Segment) -> None:
        self.lost += segment.finish()
        self._finished += segment.frames
        self._segment = None

    def _abandon(self) -> None:
        segment, self._segment = self._segment, None
        if segment is None:
            return
        lost = segment.abandon()
        self.lost += lost
        self._finished += segment.frames - lost
        if lost == segment.frames:
            self.paths.remove(segment.file.path)

    def _failure(self, error: Exception) -> CliprlError:
        reason = getattr(error, "strerror", None) or reason_of(error)
        return CliprlError(f"can't record in '{self._folder}' ({reason}): free some space or choose another place")

    def _is_over(self, segment: _Segment, frame: Frame) -> bool:
        is_late = frame.seconds - segment.start >= self._seconds and can_start(frame)
        return is_late or _frame_format(frame) != segment.format

    def _start(self, first: Frame) -> _Segment:
        self._make_folder()
        file = self._new_file()
        try:
            segment = _Segment(file, first, self._info, self._encoding, crf=self._crf, preset=self._preset)
        except BaseException:
            file.cut(0)
            raise
        self.paths.append(file.path)
        return segment

    def _make_folder(self) -> None:
        """Make the folder if it was removed, but not at the mount point of a disk that is no longer mounted."""
        if not os.path.ismount(self._mount):
            raise OSError(errno.ENOENT, f"no disk is mounted at {self._mount}")
        self._folder.mkdir(parents=True, exist_ok=True)

    def _new_file(self) -> SyncedFile:
        """Create a file named by the time in milliseconds, so that names sort by time."""
        while True:
            start = f"{datetime.now():%Y-%m-%dT%H-%M-%S-%f}"[:-3]
            try:
                return SyncedFile(self._folder / f"{start}_{self._kind}.mp4", FRAGMENT / 2)
            except FileExistsError:
                time.sleep(0.001)


def _frame_format(frame: Frame) -> tuple[Any, ...]:
    """Return the properties that can't change within a file."""
    encoder = frame.settings if isinstance(frame, CodedFrame) else None
    return (frame.height, frame.width, frame.rotation, frame.sample_aspect, frame.color, encoder)


def recording_folder(path: Path) -> Path:
    """Create the folder for recordings if needed, and return it. Raises UsageError if it can't be written."""
    with explained(f"can't record in '{path}'", "choose another place"):
        path.mkdir(parents=True, exist_ok=True)
    if not os.access(path, os.W_OK):
        raise UsageError(f"can't record in '{path}': it is write-protected; choose another place")
    return path
