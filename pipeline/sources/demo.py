"""The demo scene, rendered as a stream."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from urllib.parse import parse_qsl

from cliprl.engines import UsageError
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import PlaneAllocator, StreamInfo
from cliprl.pipeline.sources.base import FrameSource
from cliprl.pipeline.sources.decoding.nv12_writer import RgbWriter
from cliprl.pipeline.sources.registry import SourceOptions, register_source

# BT.709, limited range, and tagged so (libav's numbers).
_COLOR = ColorSpace("bt709", False, 1, 1, 1, 1)
# A scene that no shipped network was trained on.
DEFAULT_SEED = 700_068
DEFAULT_SIZE = (800, 640)
_KEYS = ("seconds", "seed", "size", "rate")
# The longest scene with an end, in seconds: a year; and the most frames a second.
_LONGEST, _FASTEST = 366 * 86_400, 1000
# Of a bounded length: a fraction has all the digits that an exponent asks for.
_NUMBER = re.compile(r"[+-]?\d{0,20}(\.\d{0,20})?(e[+-]?\d{1,2}|/\d{1,20})?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of `demo:?…`. `seconds` 0 means without end; `size` is (width, height) in pixels."""

    seconds: Fraction = Fraction(10)
    seed: int = DEFAULT_SEED
    size: tuple[int, int] = DEFAULT_SIZE
    rate: Fraction = Fraction(25)

    @classmethod
    def parse(cls, name: str) -> DemoOptions:
        """Read `demo:?seconds=10&seed=3&size=800x640&rate=25`. Raises UsageError for an unknown key or a bad value."""
        query = name.removeprefix("demo:").removeprefix("?")
        pairs = parse_qsl(query, keep_blank_values=True)
        values = dict(pairs)
        if len(values) < len(pairs):
            raise UsageError(f"{name}: an option occurs twice: give each once")
        for key in values:
            if key not in _KEYS:
                raise UsageError(f"{name}: no option '{key}': use {', '.join(_KEYS)}")
        if query and not values:
            raise UsageError(f"{name}: write options as demo:?seconds=10&seed=3&size=800x640&rate=25")
        return cls(
            _number(name, "seconds", values.get("seconds", "10"), least=0, most=_LONGEST),
            int(_number(name, "seed", values.get("seed", str(DEFAULT_SEED)), least=0)),
            _size(name, values.get("size", "{}x{}".format(*DEFAULT_SIZE))),
            _number(name, "rate", values.get("rate", "25"), least=Fraction(1, 1000), most=_FASTEST),
        )


def _number(name: str, key: str, text: str, least: Fraction | int, most: int | None = None) -> Fraction:
    try:
        value = Fraction(text if _NUMBER.fullmatch(text) else "")
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{name}: {key}={text} must be a number, as in {key}=10") from None
    if value < least or (most is not None and value > most) or (key == "seed" and value.denominator != 1):
        whole, top = "a whole number " if key == "seed" else "", "" if most is None else f" and at most {most}"
        raise UsageError(f"{name}: {key}={text} must be {whole}at least {least}{top}")
    return value


def _size(name: str, text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if not match or not all(64 <= int(n) <= 8192 for n in match.groups()):
        raise UsageError(f"{name}: size={text} must be WIDTHxHEIGHT, each from 64 to 8192, as in 800x640")
    return int(match[1]), int(match[2])


class DemoSource(FrameSource):
    """Frames of the scene renderer, RGB turned into BT.709 planes of limited range. The same name gives the same frames."""

    def __init__(self, name: str) -> None:
        options = DemoOptions.parse(name)
        width, height = options.size
        frames = round(options.seconds * options.rate) or (None if options.seconds == 0 else 1)
        seconds = float(frames / options.rate) if frames else None
        super().__init__(StreamInfo(name, height, width, 1 / options.rate, options.rate, frames, seconds, _COLOR))
        from cliprl.pipeline.synthetic import SceneRenderer

        self._renderer = SceneRenderer(options.seed, height, width)
        self._writer = RgbWriter()
        self._index = 0
        self.origin = 0.0

    def start_at(self, seconds: float) -> None:
        """Begin with the last frame at or before `seconds`. Its time becomes `origin`."""
        wanted = int(seconds / self.info.time_base)
        self._index = wanted if self.info.frames is None else min(wanted, self.info.frames - 1)
        self.origin = float(self._index * self.info.time_base)

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        if self._index == self.info.frames:
            return None
        rgb = self._renderer.render_frame(float(self._index * self.info.time_base))
        luma, chroma = allocate(self.info.height, self.info.width)
        self._writer.write(rgb, luma, chroma, _COLOR)
        frame = Frame(luma, chroma, self._index, self.info.time_base, self._index, _COLOR, 1)
        self._index += 1
        frame.mark("captured")
        return frame


@register_source(prefixes=("demo:",), help="a rendered surgical scene", generated=True, work="rendering the demo scene")
def open_demo(name: str, options: SourceOptions) -> DemoSource:
    """Open the demo scene."""
    return DemoSource(name)
