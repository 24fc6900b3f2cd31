"""A number in a frame's luma, as black and white blocks: how a benchmark knows which frame came out at the other end."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.cuda.arguments import CodeRead, CodeWrite
from cliprl.pipeline.frame import Plane

NUMBER_BITS, CHECK_BITS = 32, 8
BITS = NUMBER_BITS + CHECK_BITS
# Pixels a block: large enough to come through a codec, and a multiple of its own blocks.
BLOCK = 8
DARK, LIGHT = 32, 220
THRESHOLD = (DARK + LIGHT) // 2


def bits_of(number: int) -> NDArray[np.uint8]:
    """The blocks of a number 0..2**32-1: its bits, the lowest first, and those of a checksum. uint8 (BITS,) of 0 and 1."""
    if not 0 <= number < 1 << NUMBER_BITS:
        raise ValueError(f"{number} is no time code: 0 to {(1 << NUMBER_BITS) - 1}")
    return ((number | _check(number) << NUMBER_BITS) >> np.arange(BITS, dtype=np.uint64) & np.uint64(1)).astype(
        np.uint8
    )


def number_of(bits: NDArray[np.uint8]) -> int | None:
    """The number of such blocks; None where the checksum does not fit."""
    value = sum(int(bit) << i for i, bit in enumerate(bits))
    number = value & ((1 << NUMBER_BITS) - 1)
    return number if value >> NUMBER_BITS == _check(number) else None


def _check(number: int) -> int:
    # Never the number's own bits: a frame that is all black or all white is no code.
    return (zlib.crc32(number.to_bytes(4, "little")) & 0xFF) ^ 0x5A


def write(luma: Plane, number: int) -> None:
    """Draw a number into the upper left corner of a luma plane (H, W), at least BLOCK by BITS * BLOCK."""
    values = np.where(bits_of(number), LIGHT, DARK).astype(np.uint8)
    luma[:BLOCK, : BITS * BLOCK] = values.repeat(BLOCK)


def read(luma: Plane) -> int | None:
    """The number drawn there; None where there is none that can be trusted."""
    margin = BLOCK // 4
    blocks = luma[:BLOCK, : BITS * BLOCK].reshape(BLOCK, BITS, BLOCK)
    inner = blocks[margin : BLOCK - margin, :, margin : BLOCK - margin].astype(np.int64)
    return number_of((inner.sum(axis=(0, 2)) > THRESHOLD * (BLOCK - 2 * margin) ** 2).astype(np.uint8))


def write_arguments(luma: tuple[int, int], bits: int) -> CodeWrite:
    """Arguments of `code_write`: address and pitch of luma, and the address of `bits_of` a number."""
    return CodeWrite(BITS * BLOCK, BLOCK, *luma, BLOCK, bits, DARK, LIGHT)


def read_arguments(luma: tuple[int, int], bits: int) -> CodeRead:
    """Arguments of `code_read`: address and pitch of luma, and the address of uint8 (BITS,) for `number_of`."""
    return CodeRead(BITS, 1, *luma, BLOCK, bits, THRESHOLD, 0)
