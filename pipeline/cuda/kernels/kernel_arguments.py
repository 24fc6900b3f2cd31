"""The kernels' arguments: for every struct in `kernels/*.cu` its mirror image, field for field.

All sizes are counts of what the kernel's own comment says; all pointers are addresses in the memory the kernel runs in.
"""

from __future__ import annotations

from ctypes import Structure, c_double, c_float, c_int, c_uint64, c_void_p
from typing import Any, ClassVar

Fields = list[tuple[str, Any]]


def _fields(kind: Any, names: str) -> Fields:
    return [(name, kind) for name in names.split()]


class Arguments(Structure):
    """Arguments of the kernel `name`. Every one begins with the places it works on: `width` by `height`."""

    name: ClassVar[str]
    width: int
    height: int


class Axis(Structure):
    """`taps` weights for every output pixel, from input pixel first[i] on: addresses of int32 (n,) and float32 (n, taps)."""

    _fields_: ClassVar[Fields] = [*_fields(c_void_p, "first weight"), *_fields(c_int, "taps unused")]


class Warp(Structure):
    """How the grid lies to that of the last frame: source = scale * cell + shift."""

    _fields_: ClassVar[Fields] = _fields(c_float, "scale_x shift_x scale_y shift_y")


class Disc(Structure):
    """The endoscope's disc on the frame, and how the network input lies on it. squared: of the radius; present: 0 for none."""

    _fields_: ClassVar[Fields] = [
        *_fields(c_double, "scale_x shift_x center_x scale_y shift_y center_y squared"),
        *_fields(c_int, "present unused"),
    ]


class FrameData(Structure):
    """What changes from frame to frame. Launches read it from GPU memory: the argument `frame` of a kernel is its address."""

    _fields_: ClassVar[Fields] = [
        *_fields(c_void_p, "luma chroma probabilities labels present"),
        *_fields(c_int, "luma_pitch chroma_pitch crop_left crop_top"),
        *_fields(c_int, "placed_left placed_top placed_width placed_height network_width network_height"),
        *_fields(Axis, "luma_x luma_y chroma_x chroma_y"),
        ("matrix", c_float * 9),
        ("offset", c_float * 3),
        ("warp", Warp),
        ("disc", Disc),
        *_fields(c_int, "touched_left touched_top touched_right touched_bottom across down cell unused"),
        *_fields(c_float, "lowest highest"),
        ("first", c_int * 32),
    ]


class Prepare(Arguments):
    """Planes to the network input."""

    name = "prepare"
    _fields_: ClassVar[Fields] = [*_fields(c_int, "width height"), *_fields(c_void_p, "frame image")]


class Narrow(Arguments):
    """Samples of 10 bits to 8."""

    name = "narrow"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        ("source", c_void_p),
        *_fields(c_int, "source_pitch target_pitch"),
        ("target", c_void_p),
    ]


class CutRows(Arguments):
    """Compare the small copy of an image with the previous one, and replace it."""

    name = "cut_rows"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        ("image", c_void_p),
        *_fields(c_int, "image_width columns stride unused"),
        *_fields(c_void_p, "thumb sums"),
    ]


class Begin(Arguments):
    """Whether a frame starts another shot; clears what is collected of it."""

    name = "begin"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        ("sums", c_void_p),
        *_fields(c_int, "rows classes"),
        ("most", c_float),
        ("unused", c_int),
        *_fields(c_void_p, "fresh cut frame"),
    ]


class Recall(Arguments):
    """The prior: the last frame's logits, moved."""

    name = "recall"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        *_fields(c_void_p, "base last frame cut"),
        *_fields(c_int, "lines unused"),
        ("prior", c_void_p),
    ]


class Advance(Arguments):
    """A refinement step's result, taken or left."""

    name = "advance"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        *_fields(c_void_p, "refined moved before after"),
        ("settled", c_float),
        ("unused", c_int),
        ("logits", c_void_p),
    ]


class Classify(Arguments):
    """Logits to probabilities and labels. parts: a bit for each class that is merged where it is unsure."""

    name = "classify"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        ("logits", c_void_p),
        *[("classes", c_int), ("share", c_float), ("parts", c_uint64)],
        *_fields(c_void_p, "frame confidence"),
    ]


class CountLines(Arguments):
    """Cells of each class, the sum of confidences and the cells inside the image, line by line."""

    name = "count_lines"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        *_fields(c_void_p, "frame confidence"),
        *_fields(c_int, "columns unused"),
        ("lines", c_void_p),
    ]


class Total(Arguments):
    """Sums of columns."""

    name = "total"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        ("lines", c_void_p),
        *_fields(c_int, "count unused"),
        ("totals", c_void_p),
    ]


class ChromaDisc(Structure):
    """The endoscope's disc on the frame's chroma, in its pixels. squared: of the radius; present: 0 for none."""

    _fields_: ClassVar[Fields] = [*_fields(c_double, "x y squared"), *_fields(c_int, "present unused")]


class Upsample(Arguments):
    """Probabilities on the grid to labels at the size of the frame's chroma."""

    name = "upsample"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        *_fields(c_void_p, "probabilities present"),
        *_fields(c_int, "classes rows columns cells_left cells_top cells_wide cells_high"),
        *_fields(c_int, "target_left target_top target_wide target_high part_left part_top unused"),
        *_fields(c_double, "step_x step_y"),
        ("disc", ChromaDisc),
        ("labels", c_void_p),
    ]


class TraceContours(Arguments):
    """Labels to the painter's map, contours lifted."""

    name = "trace"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        ("labels", c_void_p),
        ("inner", ChromaDisc),
        *_fields(c_int, "left top right bottom core core_diagonal soft soft_diagonal level unused"),
        ("map", c_void_p),
    ]


class Blend(Arguments):
    """A painter's map into a frame's planes."""

    name = "blend"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        *_fields(c_void_p, "luma chroma"),
        *_fields(c_int, "luma_pitch chroma_pitch luma_width luma_height"),
        *_fields(c_void_p, "map inks"),
    ]


class StampPart(Structure):
    """A patch of text on one plane: `keep` and `add` are addresses of uint16 (height, width)."""

    _fields_: ClassVar[Fields] = [*_fields(c_void_p, "plane keep add"), *_fields(c_int, "pitch width height unused")]


class StampPatches(Arguments):
    """Patches of text into planes, up to four that do not overlap."""

    name = "stamp"
    _fields_: ClassVar[Fields] = [*_fields(c_int, "width height"), ("parts", StampPart * 4)]


class Strips(Arguments):
    """The brightness of cells on strips across and down the frame."""

    name = "strip_cells"
    _fields_: ClassVar[Fields] = [
        *[*_fields(c_int, "width height"), ("frame", c_void_p)],
        *[*_fields(c_int, "strips lines"), ("cells", c_void_p)],
    ]


class Levels(Arguments):
    """The brightness of each strip, and that of the bars."""

    name = "strip_levels"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        *_fields(c_void_p, "frame cells"),
        *_fields(c_int, "strips unused"),
        ("bright", c_void_p),
    ]


class EndsOf(Arguments):
    """Distances from the ends of strips to the image's edge."""

    name = "strip_ends"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        *_fields(c_void_p, "frame cells bright"),
        *_fields(c_int, "strips stride"),
        *_fields(c_float, "share rise"),
        ("distances", c_void_p),
    ]


class CodeWrite(Arguments):
    """A number's bits into luma."""

    name = "code_write"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        ("luma", c_void_p),
        *_fields(c_int, "pitch block"),
        ("bits", c_void_p),
        *_fields(c_int, "dark light"),
    ]


class CodeRead(Arguments):
    """Bits from luma."""

    name = "code_read"
    _fields_: ClassVar[Fields] = [
        *_fields(c_int, "width height"),
        ("luma", c_void_p),
        *_fields(c_int, "pitch block"),
        ("bits", c_void_p),
        *_fields(c_int, "threshold unused"),
    ]


KERNELS: tuple[type[Arguments], ...] = tuple(Arguments.__subclasses__())


def grid_of(arguments: Arguments) -> tuple[tuple[int, int], tuple[int, int]]:
    """Blocks and threads a block, each (x, y), that cover the places of a launch."""
    block = (128, 1) if arguments.height == 1 else (32, 8)
    return (-(-arguments.width // block[0]), -(-arguments.height // block[1])), block
