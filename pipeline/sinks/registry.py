"""The registry of sinks: each sink registers the names of its outputs, its help line and its factory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cliprl.pipeline.core.interfaces import OutputSpec, Sink
from cliprl.pipeline.core.registry import Registry
from cliprl.pipeline.sinks.video.live_encoding import LiveEncoding


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """Settings of x264: the quality `crf` (0 lossless, 51 worst), the preset, and the threads (0: automatic).

    encoders: how many encode a video file at once; 0 is one, except where a GPU segments and the CPU encodes. live: chooses the
    encoder of a network stream.
    """

    crf: float = 23
    preset: str = "ultrafast"
    threads: int = 0
    encoders: int = 0
    live: LiveEncoding | None = None


SinkFactory = Callable[[str, OutputSpec, EncoderSettings], Sink]


def replaced_file(path: Path) -> list[Path]:
    """The files that writing a plain file to `path` would replace."""
    return [path] if path.is_file() else []


@dataclass(frozen=True, slots=True)
class SinkKind:
    """A kind of output. `shown` is its name in the help and in error messages.

    is_video: a video file, which a device may encode itself. is_stream: a live run opens it again after a failure.
    is_h264: a stream that is encoded by the `live` of its settings.
    writes_frames: a folder with the frames as they were before the overlay. refers_to_frames: a label file that names frames,
    which may be exported beside it. replaces: lists the existing files that writing to a path would replace.
    """

    open: SinkFactory
    help: str
    shown: str
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    is_video: bool = False
    is_stream: bool = False
    is_h264: bool = False
    replaces: Callable[[Path], list[Path]] = replaced_file
    writes_frames: bool = False
    refers_to_frames: bool = False


SINKS: Registry[SinkKind] = Registry("cliprl.pipeline.sinks", "cliprl.sinks")


def register_sink(
    *,
    help: str,
    prefixes: tuple[str, ...] = (),
    suffixes: tuple[str, ...] = (),
    shown: str = "",
    is_video: bool = False,
    is_stream: bool = False,
    is_h264: bool = False,
    replaces: Callable[[Path], list[Path]] = replaced_file,
    writes_frames: bool = False,
    refers_to_frames: bool = False,
) -> Callable[[SinkFactory], SinkFactory]:
    """Register the decorated factory for names that begin with one of `prefixes` or end with one of `suffixes`.

    Prefixes take precedence. "/" is the suffix of folders. The help shows `shown`, or all prefixes and suffixes. See `SinkKind`.
    """

    def register(factory: SinkFactory) -> SinkFactory:
        name = shown or " ".join((*suffixes, *prefixes))
        flags = (is_video, is_stream, is_h264, replaces, writes_frames, refers_to_frames)
        SINKS.add(SinkKind(factory, help, name, prefixes, suffixes, *flags))
        return factory

    return register


def find_sink(target: str) -> SinkKind | None:
    """The kind of an output, by its name. None if there is no such kind."""
    kinds = list(SINKS)
    lower = target.lower()
    for kind in kinds:
        if lower.startswith(tuple(prefix for prefix in kind.prefixes if "://" in prefix)):
            return kind
        if target.startswith(kind.prefixes):
            return kind
    suffix = sink_suffix(target)
    return next((kind for kind in kinds if suffix in kind.suffixes), None)


def sink_suffix(target: str) -> str:
    """The suffix by which a file or a folder is known, such as ".coco.json", ".ids/" or "/", in lower case; "" if by none."""
    name = target.lower()
    if not target.endswith("/") and os.path.isdir(target):
        name += "/"
    found = [] if "://" in target else [s for kind in SINKS for s in kind.suffixes if name.endswith(s)]
    return max(found, key=len, default="")


def is_stream(target: str) -> bool:
    """Whether an output is a network stream, by its name."""
    kind = find_sink(target)
    return kind is not None and kind.is_stream


def is_h264_stream(target: str) -> bool:
    """Whether an output is a network stream in H.264, by its name."""
    kind = find_sink(target)
    return kind is not None and kind.is_h264


def writes_files(target: str) -> bool:
    """Whether an output is a file or a folder on this machine, rather than an address, a device or nothing."""
    kind = find_sink(target)
    return "://" not in target and not (kind and target.startswith(kind.prefixes))


def sink_names() -> str:
    """The names of all kinds of outputs, for error messages."""
    return ", ".join(kind.shown for kind in ordered_sinks())


def ordered_sinks() -> list[SinkKind]:
    """All kinds of outputs, video files first."""
    return sorted(SINKS, key=lambda kind: not kind.is_video)
