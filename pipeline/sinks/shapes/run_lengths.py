"""Run lengths of labelling tools: those of CVAT's masks, and the bit-packed ones of Label Studio's brush."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.sinks.shapes.polygons import BoolMask

# Label Studio packs values of 8 bits; the length of a run has one of these numbers of bits.
_VALUE_BITS, _LENGTH_BITS = 8, (3, 4, 8, 16)
_LONGEST = 1 << _LENGTH_BITS[-1]
_CHANNELS = 4


def runs(values: NDArray[np.generic]) -> tuple[NDArray[np.int64], NDArray[np.generic]]:
    """Return the lengths of the runs of equal values in a flat array, and the value of each run."""
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
    return np.diff(ends, prepend=-1), values[ends]


def cvat_runs(mask: BoolMask) -> list[int]:
    """Return the run lengths of a mask along its rows, alternately outside and inside; the first may be 0."""
    lengths, values = runs(mask.ravel())
    return [0, *lengths.tolist()] if values[0] else lengths.tolist()


def from_cvat_runs(lengths: Sequence[int], height: int, width: int) -> BoolMask:
    """Return the mask bool (height, width) of `cvat_runs`. Raises ValueError if the runs are negative or don't fill it."""
    counts = np.asarray(lengths, np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise ValueError(f"its runs cover {counts.sum()} pixels, and its box has {height * width}")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(height, width)


def brush_runs(mask: BoolMask) -> list[int]:
    """Return a mask as Label Studio's brush encodes it: the bytes of an RGBA image, 255 inside, in packed runs."""
    lengths, values = runs(mask.ravel())
    bits = [f"{mask.size * _CHANNELS:032b}{_VALUE_BITS - 1:05b}", *(f"{size - 1:04b}" for size in _LENGTH_BITS)]
    for length, inside in zip((lengths * _CHANNELS).tolist(), values.tolist(), strict=True):
        value = "1" * _VALUE_BITS if inside else "0" * _VALUE_BITS
        for part in (*[_LONGEST] * (length // _LONGEST), length % _LONGEST):
            if part:
                index = next(i for i, size in enumerate(_LENGTH_BITS) if part <= 1 << size)
                bits.append(f"1{index:02b}{part - 1:0{_LENGTH_BITS[index]}b}{value}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def from_brush_runs(data: Sequence[int], height: int, width: int) -> BoolMask:
    """Return the mask bool (height, width) of Label Studio's brush: where alpha is not 0.

    Raises ValueError if the data are damaged or of an image of another size.
    """
    text = "".join(f"{byte:08b}" for byte in bytes(data))
    at = 0

    def read(bits: int) -> int:
        nonlocal at
        at += bits
        if at > len(text):
            raise ValueError("its run lengths end early")
        return int(text[at - bits : at], 2)

    count, value_bits = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    if count != height * width * _CHANNELS:
        raise ValueError(f"its mask has {count // _CHANNELS} pixels, and {width}x{height} are {height * width}")
    lengths: list[int] = []
    values: list[int] = []
    filled = 0
    while filled < count:
        is_run, length = read(1), 0
        length = read(sizes[read(2)]) + 1
        lengths += [length] if is_run else [1] * length
        values += [read(value_bits) for _ in range(1 if is_run else length)]
        filled += length
    if filled != count:
        raise ValueError("its run lengths are longer than its mask")
    return np.repeat(np.array(values) > 0, lengths).reshape(height, width, _CHANNELS)[..., 3]
