"""Color matrices and ranges: between RGB and the 8-bit Y'CbCr of a video frame.

Formulas: ITU-R BT.601-7, BT.709-6 and BT.2020-2 (non-constant luminance), 8-bit quantisation of BT.601-7 section 2.5.
Full range is that of JFIF (JPEG File Interchange Format 1.02).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Luma weights (Kr, Kb) of each matrix.
WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
UNSPECIFIED = 2
# libavutil's AVColorSpace numbers; 5 (BT.470BG) and 6 (SMPTE 170M) share BT.601's weights, 10 is BT.2020 constant luminance.
_MATRIX_OF_TAG = {1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}
FULL_RANGE_TAG = 2


@dataclass(frozen=True, slots=True)
class ColorSpace:
    """How a frame's Y'CbCr is to be read, and the raw libav tags it came with, so that they can be written again as they were.

    `matrix` is "bt601", "bt709" or "bt2020"; the four tags are libavutil's numbers (2 = unspecified; range 0 = unspecified,
    1 = limited, 2 = full).
    """

    matrix: str = "bt709"
    full_range: bool = False
    space_tag: int = UNSPECIFIED
    range_tag: int = 0
    primaries_tag: int = UNSPECIFIED
    transfer_tag: int = UNSPECIFIED

    @classmethod
    def from_tags(
        cls,
        height: int,
        space: int,
        range_: int,
        primaries: int = UNSPECIFIED,
        transfer: int = UNSPECIFIED,
        *,
        jpeg: bool = False,
    ) -> ColorSpace:
        """Read libav's tags. Where the matrix is not tagged, BT.709 from 720 lines on and BT.601 below, as players do."""
        matrix = _MATRIX_OF_TAG.get(space) or ("bt709" if height >= 720 else "bt601")
        return cls(matrix, range_ == FULL_RANGE_TAG or (jpeg and range_ == 0), space, range_, primaries, transfer)


@lru_cache(maxsize=16)
def rgb_to_yuv_matrix(matrix: str, full_range: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 3x3 matrix M and offset o with (Y, Cb, Cr) = M @ (R, G, B) + o, all in 0..255 code values."""
    kr, kb = WEIGHTS[matrix]
    luma = np.array([kr, 1 - kr - kb, kb])
    rows = np.stack(
        [luma, (np.array([0, 0, 1]) - luma) / (2 * (1 - kb)), (np.array([1, 0, 0]) - luma) / (2 * (1 - kr))]
    )
    scale, offset = (
        ((1.0, 1.0, 1.0), (0.0, 128.0, 128.0))
        if full_range
        else ((219 / 255, 224 / 255, 224 / 255), (16.0, 128.0, 128.0))
    )
    return rows * np.array(scale)[:, None], np.array(offset)


@lru_cache(maxsize=16)
def yuv_to_rgb_matrix(matrix: str, full_range: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 3x3 matrix M and offset o with (R, G, B) = M @ (Y, Cb, Cr) + o: the inverse of `rgb_to_yuv_matrix`."""
    forward, offset = rgb_to_yuv_matrix(matrix, full_range)
    inverse = np.asarray(np.linalg.inv(forward), np.float64)
    return inverse, -inverse @ offset


def rgb_to_yuv(rgb: NDArray[np.uint8], color: ColorSpace) -> NDArray[np.uint8]:
    """Convert colors (..., 3) from R'G'B' to Y'CbCr code values, rounded to nearest, clipped to 0..255."""
    matrix, offset = rgb_to_yuv_matrix(color.matrix, color.full_range)
    return np.clip(np.rint(rgb.astype(np.float64) @ matrix.T + offset), 0, 255).astype(np.uint8)
