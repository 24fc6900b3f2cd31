"""From the name of an input to the source that reads it."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.sources.base import FrameSource
from cliprl.pipeline.sources.errors import redact
from cliprl.pipeline.sources.probe import check_file
from cliprl.pipeline.sources.registry import SOURCES, SourceKind, SourceOptions, find_source


def open_source(
    name: str | bytes | os.PathLike[str],
    *,
    rate: Fraction | int | None = None,
    stream: int | None = None,
    decoder: Callable[[Any], Any] | None = None,
) -> FrameSource:
    """Open the source for an input: a file, a list of images, a camera, a screen, an address, standard input or "demo:".

    The registry of sources and `cliprl-stream --help` list the names. `rate` is the frames per second of a list of images, 25
    by default. `stream` is the index of the video stream of a file or address with several, by default the one marked as
    default, or the largest. `decoder`: see `SourceOptions`. Raises UsageError if there is no such input, CliprlError if it
    gives no frame: one line each.
    """
    try:
        text = os.fsdecode(name)
    except TypeError:
        raise UsageError(
            f"the input is a {type(name).__name__}: give a path or an address as text; a camera is '/dev/video0', images are "
            "'frames/*.png', and arrays are frames by frame_of_image"
        ) from None
    if not text:
        raise UsageError("the input has an empty name: name a video, images, a camera or a stream")
    kind = find_source(text)
    if kind is None:
        raise _unknown(text)
    if text.lower().endswith(kind.suffixes):
        check_file(Path(text))
    _check_options(kind, text, rate, stream)
    return kind.open(text, SourceOptions(None if rate is None else Fraction(rate), stream, decoder))


def read_first_frame(name: str | Path) -> Frame:
    """Return the first frame of an image or video file. Raises what `open_source` raises, CliprlError if there is no frame."""
    with open_source(name) as source:
        frame = source.read()
    if frame is None:
        raise CliprlError(f"{redact(os.fspath(name))} holds no frame that can be read: give another image file")
    return frame


def _check_options(kind: SourceKind, name: str, rate: Fraction | int | None, stream: int | None) -> None:
    if stream is not None and not kind.takes_stream:
        raise UsageError(
            f"{redact(name)} has no streams to choose from: --stream is for video files and network streams"
        )
    if rate is not None and not kind.takes_rate:
        raise UsageError(f"{redact(name)} defines its frame rate: a rate is only for images such as frames/*.png")
    if rate is not None and rate <= 0:
        raise UsageError(f"a rate of {rate} frames per second is out of range: give a rate above 0")


def _unknown(url: str) -> UsageError:
    plugins = f" ({'; '.join(SOURCES.problems)})" if SOURCES.problems else ""
    addresses = ", ".join(prefix for kind in SOURCES for prefix in kind.prefixes if "://" in prefix)
    return UsageError(f"{redact(url)}: no such kind of address: use {addresses}{plugins}")
