"""Why an input can't be decoded: its encryption, or another kind of file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from cliprl.engines import CliprlError
from cliprl.pipeline.sources.errors import Problem, SourceError, redact, source_error, wrapping_of

# Bytes searched at the beginning and at the end of a file.
_LOOKED_AT = 1 << 20
_TS = 188
# Boxes of MP4 and QuickTime, GUIDs of ASF: (marker, what it is called).
_MARKERS = (
    (b"drmi", "FairPlay"),
    (b"encv", "Common Encryption"),
    (b"\xfb\xb3\x11\x22\x23\xbd\xd2\x11\xb4\xb7\x00\xa0\xc9\x55\xfc\x6e", "Windows Media DRM"),
    (b"\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c", "Windows Media DRM"),
)
_MATROSKA, _CONTENT_ENCODINGS, _CONTENT_ENCRYPTION = b"\x1a\x45\xdf\xa3", b"\x6d\x80", b"\x50\x35"
_HLS_KEY = re.compile(r"#EXT-X-(?:SESSION-)?KEY:(?:[^\n]*,)?METHOD=([A-Za-z0-9-]+)")


class EncryptedPacketError(Exception):
    """A packet of the video is marked as encrypted."""


def encryption_error(name: str, how: str) -> SourceError:
    """The error that refuses an encrypted input."""
    return source_error(
        SourceError,
        Problem.CODEC,
        f"{redact(name)} is encrypted ({how}) and can't be read: decrypt it with its key first",
    )


def no_frame_error(name: str, container: Any, *, in_order: bool) -> CliprlError:
    """Return the error for an open input of which no frame can be decoded; `in_order`: it can't be sought in."""
    if how := find_encryption(name):
        return encryption_error(name, how)
    if what := wrapping_of(name):
        return CliprlError(f"{redact(name)} is {what}")
    why = "it is cut off or damaged; copy it again"
    if in_order and "mp4" in container.format.name:
        why = (
            "it is cut off, or its index lies behind its frames, which takes a file on disk: name the file itself, "
            "or put the index first (ffmpeg -i INPUT -c copy -movflags +faststart OUTPUT)"
        )
    return CliprlError(f"no frame in {redact(name)} can be decoded: {why}")


def find_encryption(name: str) -> str | None:
    """The kind of encryption of a file or an HLS playlist that can't be decoded; None if there is no sign of any."""
    if ".m3u8" in name:
        return _of_playlist(name)
    path = Path(name)
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            head = file.read(_LOOKED_AT)
            file.seek(max(path.stat().st_size - _LOOKED_AT, 0))
            tail = file.read(_LOOKED_AT)
    except OSError:
        return None
    found = next((how for marker, how in _MARKERS if marker in head or marker in tail), None)
    return found or _of_matroska(head) or _of_transport_stream(head) or _of_programme_stream(head)


def _of_matroska(head: bytes) -> str | None:
    encodings = head.find(_CONTENT_ENCODINGS) if head.startswith(_MATROSKA) else -1
    return "Matroska" if encodings >= 0 and _CONTENT_ENCRYPTION in head[encodings : encodings + 64] else None


def _of_transport_stream(head: bytes) -> str | None:
    packets = range(head.find(b"G"), len(head) - _TS, _TS) if b"G" in head[:_TS] else range(0)
    if len(packets) < 2 or any(head[at] != 0x47 for at in packets[:20]):
        return None
    scrambled = sum(head[at + 3] >= 0x80 for at in packets)
    return "scrambled MPEG-TS" if scrambled > len(packets) / 4 else None


def _of_programme_stream(head: bytes) -> str | None:
    if not head.startswith(b"\0\0\1\xba"):
        return None
    starts = [m.start() for m in re.finditer(rb"\x00\x00\x01[\xe0-\xef]..[\x80-\xbf]", head, re.DOTALL)]
    scrambled = sum(bool(head[at + 6] & 0x30) for at in starts)
    return "scrambled MPEG-PS" if starts and scrambled > len(starts) / 4 else None


def _of_playlist(name: str, depth: int = 1) -> str | None:
    """The method in an HLS playlist, or in the first that a master playlist lists."""
    from cliprl.pipeline.sources.decoding.playlist import read_playlist, resolve, variants

    text = read_playlist(name)
    methods = [method for method in _HLS_KEY.findall(text) if method != "NONE"]
    if methods:
        return f"HLS, {methods[0]}"
    listed = variants(text)
    return _of_playlist(resolve(name, listed[0].address), depth - 1) if listed and depth else None
