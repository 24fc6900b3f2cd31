"""Colors of the overlay: classes that color-blind people can tell apart too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cliprl.engines import ClassSpec

Color = tuple[int, int, int]

# R, G, B. Found by search: the smallest distance in CIELAB (1976) of any two, seen normally and with protanopia, deuteranopia and
# tritanopia as simulated by Machado, Oliveira and Fernandes (2009), is 26 among the first eleven and 17 among all. None is near
# tissue, glare or the dark.
OVERLAY_COLORS: tuple[Color, ...] = (
    (68, 255, 0),
    (153, 34, 153),
    (51, 102, 0),
    (119, 0, 255),
    (221, 153, 255),
    (187, 255, 204),
    (187, 0, 102),
    (136, 170, 34),
    (238, 238, 136),
    (238, 136, 187),
    (85, 119, 255),
    (136, 255, 255),
    (153, 136, 68),
    (187, 102, 187),
    (153, 34, 204),
    (204, 187, 119),
)
# A color of the palette that is nearer to one that the user chose (sum of R, G, B differences) is left out.
_NEAR = 120


def overlay_classes(classes: Sequence[ClassSpec], chosen: Mapping[str, Color] | None = None) -> tuple[ClassSpec, ...]:
    """The classes as an overlay paints them: in `OVERLAY_COLORS`, in order, instead of their data set's colors.

    `chosen`: colors by class name that stay as they are. More classes than there are colors keep their own.
    """
    chosen = chosen or {}
    free = [color for color in OVERLAY_COLORS if all(_distance(color, other) > _NEAR for other in chosen.values())]
    painted = [spec for spec in classes if spec.kind != "background" and spec.name not in chosen]
    if len(painted) > len(free):
        free = list(OVERLAY_COLORS)
    if len(painted) > len(free):
        return tuple(classes)
    colors = dict(zip((spec.name for spec in painted), free, strict=False)) | dict(chosen)
    return tuple(replace(spec, color=colors.get(spec.name, spec.color)) for spec in classes)


def _distance(one: Color, other: Color) -> int:
    return int(np.abs(np.subtract(one, other)).sum())
