"""A frame with its H.264 packet, which was encoded once for several outputs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

from cliprl.pipeline.core.frame import Frame


@dataclass(slots=True)
class CodedFrame(Frame):
    """A frame and its packet. Unless `is_key`, it needs the packets of all frames since the last key frame.

    packet: with the stream's parameters before a key frame. settings: the encoder's, its quality first; packets of the same
    settings can follow each other.
    """

    packet: bytes = b""
    is_key: bool = False
    settings: tuple[object, ...] = ()

    @classmethod
    def of(cls, frame: Frame, packet: bytes, *, is_key: bool, settings: tuple[object, ...]) -> Self:
        """Return the frame with a packet."""
        values = {field.name: getattr(frame, field.name) for field in fields(Frame)}
        return cls(**values, packet=packet, is_key=is_key, settings=settings)


def can_start(frame: Frame) -> bool:
    """Whether an output can start with the frame, or go on with it after others are lost."""
    return not isinstance(frame, CodedFrame) or frame.is_key
