"""Prompts of a correction: clicks and boxes on a class, in pixels of the image as displayed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.nv12 import stored_points
from cliprl.pipeline.core.viewport import Viewport, frame_to_network, map_points


@dataclass(frozen=True, slots=True)
class MaskPrompt:
    """One click or box for the class `class_id`, in pixels of the image as displayed.

    corners: (x, y) of a click; (x0, y0, x1, y1) of a box. positive: whether a click lies on the class.
    """

    class_id: int
    corners: tuple[float, ...]
    positive: bool = True

    @property
    def is_box(self) -> bool:
        """Whether it is a box."""
        return len(self.corners) == 4

    def to_json(self) -> dict[str, Any]:
        """Return the prompt for a line of JSON, the class by its id."""
        place = [round(value, 2) for value in self.corners]
        return {"class": self.class_id, "box": place} if self.is_box else self._click(place)

    def _click(self, place: list[float]) -> dict[str, Any]:
        return {"class": self.class_id, "point": place, "positive": self.positive}


def network_points(prompt: MaskPrompt, frame: Frame, view: Viewport) -> NDArray[np.float64]:
    """Return the corners of a prompt (1 or 2, 2) as x, y in pixels of the network input; those of a box are sorted."""
    points = np.array(prompt.corners, np.float64).reshape(-1, 2)
    stored = stored_points(points, (frame.width, frame.height), frame.rotation)
    mapped = map_points(frame_to_network(view), stored)
    return np.stack([mapped.min(axis=0), mapped.max(axis=0)]) if prompt.is_box else mapped
