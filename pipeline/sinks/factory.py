"""From the name of an output to the sink that writes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cliprl.engines import UsageError
from cliprl.pipeline.core.interfaces import OutputSpec, Sink, StreamInfo
from cliprl.pipeline.sinks.places import check_not_an_input
from cliprl.pipeline.sinks.registry import SINKS, EncoderSettings, find_sink, sink_names, writes_files
from cliprl.pipeline.sinks.video.live_encoding import LiveEncoding
from cliprl.pipeline.sources.errors import redact


def open_sink(
    target: str | bytes | os.PathLike[str],
    spec: OutputSpec,
    *,
    crf: float = 23,
    preset: str = "ultrafast",
    threads: int = 0,
    encoders: int = 0,
    live: LiveEncoding | None = None,
) -> Sink:
    """Open the sink for an output: a video file, a folder of masks, annotations, a stream, a device or "null:".

    The registry of sinks and `cliprl-stream --help` list the names. `crf`, `preset` and `threads` are x264's; more than one of
    `encoders` encode a video file at once; `live` chooses the encoder of a network stream. Raises UsageError if the name is of no
    registered kind, the place can't be written, or the output would replace an input; any other file is replaced.
    """
    stream: Any = getattr(spec, "stream", None)
    if not (isinstance(target, str | bytes | os.PathLike) and isinstance(stream, StreamInfo)):
        raise UsageError(
            f"open_sink was given a {type(target).__name__} and a {type(spec).__name__}: give it a path or an address as text, "
            "and OutputSpec(source.info, segmenter.classes)"
        )
    name = os.fsdecode(target)
    if not name:
        raise UsageError("an output has an empty name: give it one")
    try:
        is_possible = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        is_possible = False
    if not is_possible:
        raise UsageError(f"no file can have the name {name!r}: choose another one")
    kind = find_sink(name)
    if kind is None:
        raise _unknown(name)
    if writes_files(name):
        check_not_an_input(Path(name), spec.stream.name)
    return kind.open(name, spec, EncoderSettings(crf, preset, threads, encoders, live))


def is_video(target: str, spec: OutputSpec) -> bool:
    """Whether an output is a video file. Raises UsageError if it is an input itself."""
    kind = find_sink(target)
    found = kind is not None and kind.is_video
    if found:
        check_not_an_input(Path(target), spec.stream.name)
    return found


def _unknown(target: str) -> UsageError:
    plugins = f" ({'; '.join(SINKS.problems)})" if SINKS.problems else ""
    if "://" in target:
        addresses = ", ".join(prefix for kind in SINKS for prefix in kind.prefixes if "://" in prefix)
        return UsageError(f"{redact(target)}: can't stream to such an address: use {addresses}{plugins}")
    return UsageError(f"'{target}' names no kind of output: use one of {sink_names()}{plugins}")
