"""The registry of sources: each source registers the names of its inputs, its help line and its factory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cliprl.pipeline.core.registry import Registry
from cliprl.pipeline.sources.base import FrameSource


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """`rate`: frames per second of a list of images. `stream`: the index of the video stream. None: not given.

    decoder: makes what decodes a live stream in the place of libav's context, which it gets. It has `notes` and `close`.
    """

    rate: Fraction | None = None
    stream: int | None = None
    decoder: Callable[[Any], Any] | None = None


SourceFactory = Callable[[str, SourceOptions], FrameSource]


@dataclass(frozen=True, slots=True)
class SourceKind:
    """A kind of input. `shown` is its name in the help and in error messages.

    matches: decides for a name without a registered prefix or suffix. live: the source gives frames at its own pace.
    generated: its name alone determines its frames. takes_rate, takes_stream: whether these options apply.
    work: describes what reading a frame does, for the summary of a run.
    """

    open: SourceFactory
    help: str
    shown: str
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    matches: Callable[[str], bool] | None = None
    live: bool = False
    generated: bool = False
    takes_rate: bool = False
    takes_stream: bool = False
    work: str = "decoding"


SOURCES: Registry[SourceKind] = Registry("cliprl.pipeline.sources", "cliprl.sources")


def register_source(
    *,
    help: str,
    shown: str = "",
    prefixes: tuple[str, ...] = (),
    suffixes: tuple[str, ...] = (),
    matches: Callable[[str], bool] | None = None,
    live: bool = False,
    generated: bool = False,
    takes_rate: bool = False,
    takes_stream: bool = False,
    work: str = "decoding",
) -> Callable[[SourceFactory], SourceFactory]:
    """Register the decorated factory for names with one of `prefixes` or `suffixes`, and those that `matches` accepts.

    An existing file is matched by suffix and by `matches` only. A kind without any of the three opens all other files.
    The help shows `shown`, or all prefixes and suffixes. See `SourceKind`.
    """

    def register(factory: SourceFactory) -> SourceFactory:
        name = shown or " ".join((*suffixes, *prefixes))
        flags = (live, generated, takes_rate, takes_stream, work)
        SOURCES.add(SourceKind(factory, help, name, prefixes, suffixes, matches, *flags))
        return factory

    return register


def find_source(name: str) -> SourceKind | None:
    """The kind of an input, by its name. None for an address of an unknown kind."""
    kinds, lower, is_file = list(SOURCES), name.lower(), os.path.isfile(name)
    for kind in () if is_file else kinds:
        if name.startswith(kind.prefixes) or lower.startswith(tuple(p for p in kind.prefixes if "://" in p)):
            return kind
    if "://" in name and not is_file:
        return None
    found = [(len(suffix), kind) for kind in kinds for suffix in kind.suffixes if lower.endswith(suffix)]
    if found:
        return max(found, key=lambda pair: pair[0])[1]
    return next((kind for kind in kinds if kind.matches and kind.matches(name)), _fallback())


def is_live_name(name: str) -> bool:
    """Whether a name is that of a live source. For http this is known only after opening."""
    kind = find_source(name)
    return kind is not None and kind.live


def _fallback() -> SourceKind:
    return next(kind for kind in SOURCES if not (kind.prefixes or kind.suffixes or kind.matches))


def ordered_sources() -> list[SourceKind]:
    """All kinds of inputs, files first."""
    return sorted(SOURCES, key=lambda kind: kind != _fallback())
