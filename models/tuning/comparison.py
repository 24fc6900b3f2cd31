"""The scores of a bundle before and after tuning, and the rule by which a worse bundle is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cliprl.engines import Bundle, ClassSpec
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.label_mapping import map_by_name, map_to_instrument
from cliprl.models.evaluation.manifest_scores import FOREGROUND_MIOU, POOLED, score_bundle
from cliprl.models.evaluation.scoring.iou import DEFINITIONS
from cliprl.models.training.run_datasets import TestDataset

# Points that a score on old data may lose; a score on new data may lose none.
MAX_LOSS = 1.0
# What `score_bundle` calls the score of all instruments as one.
_INSTRUMENT = "instrument"


@dataclass(frozen=True, slots=True)
class HeldOutPart:
    """Held-out data, with labels for the bundle's classes: new data or old."""

    title: str
    data: LabelledDataset
    new: bool

    def tests(self, classes: Sequence[ClassSpec]) -> list[TestDataset]:
        """Return the data set as instrument or not, and by class."""
        union = map_to_instrument(classes, classes, ())
        by_class = map_by_name(classes, classes, {}, ())
        return [
            TestDataset(self.title, self.data, union, union=True),
            TestDataset(self.title, self.data, by_class),
        ]


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """A score before and after tuning, as shares; `allowed` is the loss in points up to which the bundle is accepted."""

    title: str
    frames: int
    before: float
    after: float
    allowed: float

    @property
    def gain(self) -> float:
        """Return the gain in points."""
        return 100 * (self.after - self.before)

    @property
    def refused(self) -> bool:
        """Return whether the loss is too large."""
        return round(-self.gain, 2) > self.allowed


def score_parts(
    bundle: Bundle, parts: Sequence[HeldOutPart], progress: Callable[[int, int], None] = lambda done, total: None
) -> Mapping[str, Any]:
    """Return the manifest's score entries of all parts."""
    tests = [test for part in parts for test in part.tests(bundle.manifest.classes)]
    return score_bundle(bundle, tests, 1, progress)


def compare_scores(
    before: Mapping[str, Any], after: Mapping[str, Any], parts: Sequence[HeldOutPart]
) -> list[ScoreChange]:
    """Return the changes of the deciding scores: instrument IoU, and the mean IoU of the classes.

    Of new data the classes decide only if no instrument is labelled.
    """
    rows = []
    for part in parts:
        found = [
            _change(f"{part.title}, {kind}", before, after, 0.0 if part.new else MAX_LOSS)
            for kind in (_INSTRUMENT, DEFINITIONS[FOREGROUND_MIOU].title)
        ]
        defined = [row for row in found if row is not None]
        rows += defined[:1] if part.new else defined
    return rows


def _change(title: str, before: Mapping[str, Any], after: Mapping[str, Any], allowed: float) -> ScoreChange | None:
    old, now = (side[title]["refined"][POOLED] for side in (before, after))
    frames = sum(after[title]["frames"].values())
    return None if old is None or now is None else ScoreChange(title, frames, old, now, allowed)
