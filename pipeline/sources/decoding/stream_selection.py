"""The choice of a video stream."""

from __future__ import annotations

from typing import Any

from av.stream import Discard, Disposition

from cliprl.engines import CliprlError, UsageError

# Cover images and chapter thumbnails.
_NO_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails


def select(container: Any, name: str, wanted: int | None = None) -> tuple[Any, str | None]:
    """Choose the video stream to show. Returns it, and a note if there are several.

    It is the one marked as default, among several the largest, then the one with the highest bit rate; `wanted` is the index of
    another one, as in the note. Its decoder exists: libav crashes without one. Cover images are never chosen. The
    packets of all other streams are skipped.
    Raises UsageError if `wanted` is no video stream, CliprlError if no video stream can be decoded.
    """
    streams = [s for s in container.streams.video if not s.disposition & _NO_VIDEO]
    if not streams:
        kinds = ", ".join(sorted({_kind(s) for s in container.streams})) or "nothing"
        raise CliprlError(f"{name} has no video stream (it has {kinds}): name a file with video")
    tiles = sum(bool(s.disposition & Disposition.dependent) for s in streams)
    if tiles and wanted is None and "mif1" in container.metadata.get("compatible_brands", ""):
        raise CliprlError(
            f"{name} is an image of {tiles} tiles (HEIF), which can't be joined here: save it as JPEG or PNG"
        )
    listed = ", ".join(map(_describe, streams))
    if wanted is not None and wanted not in [s.index for s in streams]:
        raise UsageError(
            f"{name} has no video stream {wanted}: there {_are(streams)} {listed}; name one of them by --stream"
        )
    decodable = [s for s in streams if s.codec_context is not None and wanted in (None, s.index)]
    if not decodable:
        raise CliprlError(
            f"the video of {name} can't be decoded (cut off, or no decoder for its codec): convert it to H.264"
        )
    chosen = max(decodable, key=_rank)
    _discard_others(container, chosen)
    if len(streams) == 1:
        return chosen, None
    return (
        chosen,
        f"of {len(streams)} video streams ({listed}) stream {chosen.index} is shown: choose another with --stream",
    )


def _kind(stream: Any) -> str:
    return "a cover image" if stream.type == "video" else str(stream.type)


def _rank(stream: Any) -> tuple[bool, bool, int, int, int]:
    context = stream.codec_context
    is_default = bool(stream.disposition & Disposition.default)
    return bool(context.width), is_default, context.width * context.height, _bit_rate(stream), -stream.index


def _bit_rate(stream: Any) -> int:
    """That of the variant in HLS, else that of the stream; 0 if unknown."""
    return _variant_rate(stream) or stream.codec_context.bit_rate or 0


def _variant_rate(stream: Any) -> int:
    stated = stream.metadata.get("variant_bitrate", "")
    return int(stated) if stated.isdecimal() else 0


def _describe(stream: Any) -> str:
    context = stream.codec_context
    if context is None:
        return f"{stream.index} (no decoder)"
    parts = [f"{context.width}x{context.height}" if context.width else "unknown size", context.name]
    if rate := _variant_rate(stream):
        parts.append(f"{rate // 1000} kbit/s")
    if stream.disposition & Disposition.default:
        parts.append("default")
    return f"{stream.index} ({' '.join(parts)})"


def _are(streams: list[Any]) -> str:
    return "is" if len(streams) == 1 else "are"


def _discard_others(container: Any, chosen: Any) -> None:
    """Have the demuxer skip other video streams, and audio that belongs to another program or variant."""
    best = container.streams.best("video", related=chosen)
    for stream in container.streams:
        other_video = stream.type == "video" and stream is not chosen and not stream.disposition & _NO_VIDEO
        if other_video or (stream.type == "audio" and not _goes_with(container, stream, chosen, best)):
            stream.discard = Discard.all


def _goes_with(container: Any, audio: Any, chosen: Any, best: Any) -> bool:
    """Whether audio is of the variant or program of the chosen video, or of none."""
    variant = audio.metadata.get("variant_bitrate")
    if variant is not None:
        return bool(variant == chosen.metadata.get("variant_bitrate"))
    related = container.streams.best("video", related=audio)
    return related is None or best is None or related.index == best.index
