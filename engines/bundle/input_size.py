"""The input size of a bundle's networks, chosen at run time. They are convolutional: weights do not depend on the size."""

from __future__ import annotations

import math
import re
from dataclasses import replace

from cliprl.engines.bundle.bundle import Bundle
from cliprl.engines.errors import UsageError

# Height and width in pixels.
Size = tuple[int, int]
# The value of `--input-size` for the largest size that keeps up with the input.
AUTO_SIZE = "auto"
# Sizes that errors recommend.
OFFERED: tuple[Size, ...] = ((256, 320), (384, 480), (512, 640))
# Sides are multiples of the coarsest stride of the towers, and not below the least. With the most pixels the small bundle takes
# 0.5 GB.
SIDE_UNIT, LEAST_SIDE, MOST_PIXELS = 32, 64, 1024 * 1280


def size_text(size: Size) -> str:
    """Return a size as it is written on command lines, height first: "256x320"."""
    return f"{size[0]}x{size[1]}"


def parse_size(text: str, own: Size = OFFERED[0]) -> Size:
    """Read HEIGHTxWIDTH. Raises UsageError, with the rule that it breaks and an allowed size, for what no bundle may have.

    `own`: the bundle's own size (height, width), whose shape the advised sizes have.
    """
    is_tall = own[0] > own[1]
    sizes = [size[::-1] if is_tall else size for size in OFFERED]
    offered = ", ".join(map(size_text, sizes))
    found = re.fullmatch(r"([0-9]{1,9})[x×]([0-9]{1,9})", text.strip().lower())
    if not found:
        raise UsageError(f"input size '{text[:40]}' is not HEIGHTxWIDTH: give {offered} or {AUTO_SIZE}")
    size = int(found[1]), int(found[2])
    if any(side % SIDE_UNIT for side in size):
        near = nearest_size(*size)
        is_turned = (near[0] - near[1]) * (own[0] - own[1]) < 0
        near = near[::-1] if is_turned else near
        advised = size_text(near) if math.prod(near) <= MOST_PIXELS else offered
        raise UsageError(
            f"input size {size_text(size)}: height and width must be multiples of {SIDE_UNIT}, such as {advised}"
        )
    if min(size) < LEAST_SIDE:
        raise UsageError(
            f"input size {size_text(size)}: height and width must be at least {LEAST_SIDE}: give one of {offered}"
        )
    if math.prod(size) > MOST_PIXELS:
        raise UsageError(
            f"input size {size_text(size)} has {math.prod(size)} pixels, more than the {MOST_PIXELS} that networks are given "
            f"memory for: give one of {offered}"
        )
    return size


def nearest_size(height: float, width: float) -> Size:
    """Return the nearest size whose sides follow the rules; it may have too many pixels."""
    sides = (max(LEAST_SIDE, round(side / SIDE_UNIT) * SIDE_UNIT) for side in (height, width))
    return next(sides), next(sides)


def with_input_size(bundle: Bundle, size: Size | str | None) -> Bundle:
    """Return the bundle with networks that take images of another size, (height, width) or HEIGHTxWIDTH; None: its own.

    Whether its graphs can is known when they are compiled. Raises UsageError for a size that no bundle may have, and for a
    tall one where the bundle's own is wide.
    """
    if size is None:
        return bundle
    own, text = own_size(bundle), size if isinstance(size, str) else size_text(size)
    # A bundle's own size may break the rules for others: a transformer needs no multiple of 32.
    height, width = own if text == size_text(own) else parse_size(text, own)
    if (height - width) * (own[0] - own[1]) < 0:
        raise UsageError(
            f"input size {height}x{width} is {'tall' if height > width else 'wide'}, and that of bundle "
            f"'{bundle.manifest.name}' is not: the height comes first, so give {width}x{height}"
        )
    manifest = replace(bundle.manifest, height=height, width=width)
    return replace(bundle, manifest=manifest, own_size=None if (height, width) == own else own)


def own_size(bundle: Bundle) -> Size:
    """Return the input size (height, width) of the bundle's files: that of its reference and its fitted confidence."""
    return bundle.own_size or (bundle.manifest.height, bundle.manifest.width)


def size_of(bundle: Bundle) -> Size:
    """Return the input size (height, width) that the bundle's networks are to run at."""
    return bundle.manifest.height, bundle.manifest.width


def grid_scale(bundle: Bundle) -> float:
    """Return how many times as many cells lie side by side at the bundle's input size as at its own."""
    return math.sqrt(math.prod(size_of(bundle)) / math.prod(own_size(bundle)))


def one_size_only(bundle: Bundle, file: str) -> str:
    """Return the message for a graph that takes its own input size only."""
    return (
        f"bundle '{bundle.manifest.name}' can't take images of {size_text(size_of(bundle))}: its {file} is made for "
        f"{size_text(own_size(bundle))} alone, as a vision transformer with fixed positions is: "
        f"leave --input-size out, or train or export the bundle at that size"
    )
