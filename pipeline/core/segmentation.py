"""The segmentation of a frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.confidence import ConfidenceModel, Reliability
from cliprl.pipeline.core.viewport import Viewport, inside_cells


@dataclass(frozen=True, slots=True, eq=False)
class ZoomedRegion:
    """Logits float32 (K, rows, columns) of a part of the grid, from an enlarged part of the frame; `cells`: which of them count.

    cells: bool (rows, columns).
    """

    rows: slice
    columns: slice
    logits: NDArray[np.float32]
    cells: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Instance:
    """One instrument in one frame.

    id: its number, from 1, which no other instrument of the stream gets. name: the group of classes that it belongs to
    ("instrument"), or its class. class_id: the class that most of its cells have. cells: its area on the network's grid.
    How sure its mask is: `Segmentation.confidence_over` its cells.
    """

    id: int
    name: str
    class_id: int
    cells: int


class FollowState(StrEnum):
    """Whether the instrument that is followed was chosen already, and whether it is in view."""

    WAITING = "waiting"
    FOLLOWING = "following"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Followed:
    """The instrument that is followed; its id is 0 until it was chosen."""

    state: FollowState
    id: int


@dataclass(frozen=True, slots=True, eq=False)
class Instances:
    """The instruments of a frame. ids: uint16 (h, w), the number of the instrument at each cell, 0 for none.

    followed: the instrument that is followed, None if none is to be.
    """

    ids: NDArray[np.uint16]
    items: tuple[Instance, ...]
    followed: Followed | None = None


@dataclass(frozen=True, slots=True)
class DamageEstimate:
    """Brightness values 0..255 of a network input: standard deviation of its noise, its mean, its darkest tenth."""

    noise: float
    mean: float
    haze: float


@dataclass(slots=True, eq=False)
class Segmentation:
    """Labels at the resolution of the network, and the view that maps them onto the frame.

    labels: uint8 (h, w), the class of each cell of the network's grid, 0 (background) outside the field of view.
    probabilities: float32 (K, h, w), softmax of the refined logits; sums to 1 over K.
    confidence: mean of the largest probability over the cells in the field of view, 0..1.
    steps: number of refinement steps (0: none). moved: share of cells that the last step changed.
    instances: the instruments with their numbers; None in a stream that does not track them.
    presence: estimated probability, 0..1, that the frame shows a class, by the names of the classes that are left out of `labels`
    where they are absent; None if there is none of these.
    model: the confidence of the bundle, None for one without. colors: RGB uint8 (h, w, 3), the network input at the cells; None
    where it is not on the host.
    damage: noise, brightness and haze of the network input before restoration; None if they were not measured.
    unmerged: the same with the likeliest class in every cell, where unsure `parts` (class ids) are merged into the last class;
    None without such a class.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    view: Viewport
    confidence: float
    steps: int
    moved: float = 0.0
    instances: Instances | None = None
    presence: Mapping[str, float] | None = None
    model: ConfidenceModel | None = None
    colors: NDArray[np.uint8] | None = field(default=None, repr=False)
    damage: DamageEstimate | None = None
    unmerged: Segmentation | None = field(default=None, repr=False)
    parts: tuple[int, ...] = ()
    _reliability: Reliability | None = field(default=None, repr=False)
    # Not carried to a copy with other labels: `replace` leaves them out.
    _calibrated: NDArray[np.float32] | None = field(default=None, init=False, repr=False)
    _statistics: NDArray[np.float64] | None = field(default=None, init=False, repr=False)

    @property
    def reliability(self) -> Reliability | None:
        """How far the mask can be trusted; None without a model. It is computed when it is first read, and kept."""
        if self.unmerged is not None:
            return self.unmerged.reliability
        if self._reliability is None and self.model is not None:
            inside = inside_cells(self.view, *self.labels.shape)
            self._reliability = self.model.assess(
                self._statistics_of(self.model), self.probabilities, inside, self.colors
            )
        return self._reliability

    @property
    def mark(self) -> str:
        """The mark of the status line: "unfamiliar view", "unsure", or nothing."""
        return self.reliability.mark if self.reliability else ""

    def calibrated(self) -> NDArray[np.float32]:
        """Return the probabilities (K, h, w) as a user should read them: calibrated if there is a model for it.

        Where the class of unsure parts won, it has the probability of all of them. They are computed at the first call, and kept.
        """
        if self._calibrated is None:
            chances = self.probabilities
            if self.model is not None:
                chances = self.model.calibrate(self._statistics_of(self.model), chances, self.labels)
            self._calibrated = self._with_union(chances) if self.parts else chances
        return self._calibrated

    def _with_union(self, chances: NDArray[np.float32]) -> NDArray[np.float32]:
        members, cells = [*self.parts, len(chances) - 1], self.labels == len(chances) - 1
        result = chances.copy()
        for class_id in members:
            result[class_id][cells] = 0
        result[-1][cells] = chances[members][:, cells].sum(axis=0)
        return result

    @property
    def likeliest(self) -> Segmentation:
        """The segmentation with the likeliest class in every cell: this one, unless it has unsure parts."""
        return self.unmerged or self

    def _statistics_of(self, model: ConfidenceModel) -> NDArray[np.float64]:
        if self.unmerged is not None:
            return self.unmerged._statistics_of(model)
        if self._statistics is None:
            inside = inside_cells(self.view, *self.labels.shape)
            self._statistics = model.statistics(self.probabilities, self.labels, inside)
        return self._statistics

    @property
    def calibrated_confidence(self) -> float:
        """The mean calibrated probability of the cells' classes in the field of view, 0..1; `confidence` without a model."""
        inside = inside_cells(self.view, *self.labels.shape)
        return self.confidence if self.model is None or not inside.any() else self.confidence_over(inside)

    def confidence_over(self, cells: NDArray[np.bool_]) -> float:
        """Return the mean calibrated probability of the classes of `cells`, bool (h, w), 0..1; 0 without any."""
        found = np.flatnonzero(cells)
        winning = self.calibrated().ravel()[self.labels.ravel()[found].astype(np.intp) * cells.size + found]
        return min(float(winning.mean()), 1.0) if len(found) else 0.0
