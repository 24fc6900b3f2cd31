"""The kernels' arguments: for every struct in `kernels/*.cu` its mirror image, field for field.

All sizes are counts of what the kernel's own comment says; all pointers are addresses in the memory the kernel runs in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from ctypes import Structure, c_double, c_float, c_int, c_uint64, c_void_p
from typing import Any, ClassVar, Self

Fields = list[tuple[str, Any]]
_KINDS = {"int": c_int, "float": c_float, "double": c_double, "u64": c_uint64, "pointer": c_void_p}


def _fields(text: str) -> Fields:
    """Read fields as C writes them: "KIND NAME NAME; KIND NAME"."""
    groups = (group.split() for group in text.split(";"))
    return [(name, _KINDS[kind]) for kind, *names in groups for name in names]


def class_bits(ids: Iterable[int]) -> int:
    """Return a number with a bit for each class id."""
    return sum(1 << index for index in ids)


class Arguments(Structure):
    """Arguments of the kernel `name`. Every one begins with the places it works on: `width` by `height`."""

    name: ClassVar[str]
    width: int
    height: int
    _fields_: ClassVar[Fields] = _fields("int width height")


class Axis(Structure):
    """`taps` weights for every output pixel, from input pixel first[i] on: addresses of int32 (n,) and float32 (n, taps)."""

    _fields_: ClassVar[Fields] = _fields("pointer first weight; int taps unused")


class Warp(Structure):
    """How the grid lies to that of the last frame: source = scale * cell + shift."""

    _fields_: ClassVar[Fields] = _fields("float scale_x shift_x scale_y shift_y")


class Disc(Structure):
    """The endoscope's disc on the frame, and how the network input lies on it. squared: of the radius; present: 0 for none."""

    _fields_: ClassVar[Fields] = _fields(
        "double scale_x shift_x center_x scale_y shift_y center_y squared; int present unused"
    )


class FrameData(Structure):
    """What changes from frame to frame. Launches read it from GPU memory: the argument `frame` of a kernel is its address."""

    _fields_: ClassVar[Fields] = [
        *_fields("pointer luma chroma probabilities labels present; int luma_pitch chroma_pitch crop_left crop_top"),
        *_fields("int placed_left placed_top placed_width placed_height network_width network_height"),
        *[("luma_x", Axis), ("luma_y", Axis), ("chroma_x", Axis), ("chroma_y", Axis)],
        ("matrix", c_float * 9),
        ("offset", c_float * 3),
        ("warp", Warp),
        ("disc", Disc),
        *_fields("int touched_left touched_top touched_right touched_bottom across down cell unused"),
        *_fields("float lowest highest"),
        ("first", c_int * 32),
    ]


class Prepare(Arguments):
    """Planes to the network input."""

    name = "prepare"
    _fields_: ClassVar[Fields] = _fields("pointer frame image")


class Narrow(Arguments):
    """Samples of 10 bits to 8."""

    name = "narrow"
    _fields_: ClassVar[Fields] = _fields("pointer source; int source_pitch target_pitch; pointer target")


class CutRows(Arguments):
    """Compare the small copy of an image with the previous one, and replace it."""

    name = "cut_rows"
    _fields_: ClassVar[Fields] = _fields("pointer image; int image_width columns stride unused; pointer thumb sums")


class Begin(Arguments):
    """Whether a frame starts another shot; clears what is collected of it."""

    name = "begin"
    _fields_: ClassVar[Fields] = _fields(
        "pointer sums; int rows classes; float most; int unused; pointer fresh cut frame"
    )


class Recall(Arguments):
    """The prior: the last frame's logits, moved."""

    name = "recall"
    _fields_: ClassVar[Fields] = _fields("pointer base last frame cut; int lines unused; pointer prior")


class Advance(Arguments):
    """A refinement step's result, taken or left."""

    name = "advance"
    _fields_: ClassVar[Fields] = _fields(
        "pointer refined moved before after; float settled; int unused; pointer logits"
    )


class Regions(Structure):
    """The rule of `InstrumentRegions`. members, others: a bit for each class; no members: no rule.

    odds: (1 - t) / t of the threshold t. least: cells of the smallest region. roots, sizes: scratch, an int32 for each cell.
    """

    _fields_: ClassVar[Fields] = _fields("u64 members others; float odds; int least; pointer roots sizes")

    @classmethod
    def of(cls, members: Iterable[int], others: Iterable[int], threshold: float, least: float, *scratch: int) -> Self:
        """Return the rule for instruments `members` and background and tissue `others`, by their ids."""
        return cls(class_bits(members), class_bits(others), 1 / threshold - 1, math.ceil(least), *scratch)


class MarkCells(Arguments):
    """Logits to probabilities, and the cells that may be of an instrument."""

    name = "mark_cells"
    _fields_: ClassVar[Fields] = [*_fields("pointer logits; int classes unused; pointer frame"), ("regions", Regions)]


class JoinCells(Arguments):
    """Marked cells that touch, to one region."""

    name = "join_cells"
    _fields_: ClassVar[Fields] = _fields("pointer roots")


class MeasureRegions(Arguments):
    """The number of cells of each region."""

    name = "measure_regions"
    _fields_: ClassVar[Fields] = _fields("pointer roots sizes")


class Classify(Arguments):
    """Logits to probabilities and labels. parts: a bit for each class that is merged where it is unsure.

    With a rule in `regions`, the probabilities must have been written by `MarkCells`.
    """

    name = "classify"
    _fields_: ClassVar[Fields] = [
        *_fields("pointer logits; int classes; float share; u64 parts; pointer frame confidence"),
        ("regions", Regions),
    ]


class CountLines(Arguments):
    """Cells of each class, the sum of confidences and the cells inside the image, line by line."""

    name = "count_lines"
    _fields_: ClassVar[Fields] = _fields("pointer frame confidence; int columns unused; pointer lines")


class Total(Arguments):
    """Sums of columns."""

    name = "total"
    _fields_: ClassVar[Fields] = _fields("pointer lines; int count unused; pointer totals")


class ChromaDisc(Structure):
    """The endoscope's disc on the frame's chroma, in its pixels. squared: of the radius; present: 0 for none."""

    _fields_: ClassVar[Fields] = _fields("double x y squared; int present unused")


class Upsample(Arguments):
    """Probabilities on the grid to labels at the size of the frame's chroma."""

    name = "upsample"
    _fields_: ClassVar[Fields] = [
        *_fields("pointer probabilities present; int classes rows columns cells_left cells_top cells_wide cells_high"),
        *_fields("int target_left target_top target_wide target_high part_left part_top unused; double step_x step_y"),
        ("disc", ChromaDisc),
        *_fields("pointer labels"),
    ]


class TraceContours(Arguments):
    """Labels to the painter's map, contours lifted."""

    name = "trace"
    _fields_: ClassVar[Fields] = [
        *_fields("pointer labels"),
        ("inner", ChromaDisc),
        *_fields("int left top right bottom core core_diagonal soft soft_diagonal level unused; pointer map"),
    ]


class Blend(Arguments):
    """A painter's map into a frame's planes."""

    name = "blend"
    _fields_: ClassVar[Fields] = _fields(
        "pointer luma chroma; int luma_pitch chroma_pitch luma_width luma_height; pointer map inks"
    )


class StampPart(Structure):
    """A patch of text on one plane: `keep` and `add` are addresses of uint16 (height, width)."""

    _fields_: ClassVar[Fields] = _fields("pointer plane keep add; int pitch width height unused")


class StampPatches(Arguments):
    """Patches of text into planes, up to four that do not overlap."""

    name = "stamp"
    _fields_: ClassVar[Fields] = [("parts", StampPart * 4)]


class Strips(Arguments):
    """The brightness of cells on strips across and down the frame."""

    name = "strip_cells"
    _fields_: ClassVar[Fields] = _fields("pointer frame; int strips lines; pointer cells")


class Levels(Arguments):
    """The brightness of each strip, and that of the bars."""

    name = "strip_levels"
    _fields_: ClassVar[Fields] = _fields("pointer frame cells; int strips unused; pointer bright")


class EndsOf(Arguments):
    """Distances from the ends of strips to the image's edge."""

    name = "strip_ends"
    _fields_: ClassVar[Fields] = _fields(
        "pointer frame cells bright; int strips stride; float share rise; pointer distances"
    )


class CodeWrite(Arguments):
    """A number's bits into luma."""

    name = "code_write"
    _fields_: ClassVar[Fields] = _fields("pointer luma; int pitch block; pointer bits; int dark light")


class CodeRead(Arguments):
    """Bits from luma."""

    name = "code_read"
    _fields_: ClassVar[Fields] = _fields("pointer luma; int pitch block; pointer bits; int threshold unused")


KERNELS: tuple[type[Arguments], ...] = tuple(Arguments.__subclasses__())


def grid_of(arguments: Arguments) -> tuple[tuple[int, int], tuple[int, int]]:
    """Blocks and threads a block, each (x, y), that cover the places of a launch."""
    block = (128, 1) if arguments.height == 1 else (32, 8)
    return (-(-arguments.width // block[0]), -(-arguments.height // block[1])), block
