"""What a recipe trains on and is scored on, opened and checked before a step is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.config.config import Recipe
from cliprl.models.data.augmentation.copy_paste import Composed
from cliprl.models.data.batch_loader import Mixture
from cliprl.models.data.dataset_spec import Description
from cliprl.models.data.image_mask_dataset import Labelled
from cliprl.models.data.label_mapping import ClassMap, by_name, by_union, in_classes, instrument_or_not
from cliprl.models.data.registry import Surroundings, open_dataset
from cliprl.models.data.sets import vocalfolds
from cliprl.models.data.sets.caption_dataset import CaptionDataset
from cliprl.models.data.sets.corrupted_dataset import CorruptedDataset
from cliprl.models.data.sets.rendered import RenderedScenes, SceneSet
from cliprl.models.data.sets.vocalfolds import VocalFolds
from cliprl.models.data.splits import check_apart
from cliprl.pipeline.synthetic import SCENE_CLASSES

# Options of a line that say how a set is learned from, or scored: its share of a batch, what its labels tell, what they don't.
LEARNING = ("share", "labels", "ignore")
# The same of a set that is scored on; `severity` corrupts it.
SCORING = ("labels", "ignore", "severity")
# Told while scenes are drawn: how many of how many.
Drawing = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Scored:
    """A data set to score on, and how its classes meet the network's: `union` where they are instrument or not, `empty`
    where moreover there is no instrument in it."""

    title: str
    data: Labelled
    classes: ClassMap
    union: bool = False
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Sets:
    """What a run needs: the classes it learns, batches for its stages, sets with captions, and what it is scored on."""

    classes: tuple[ClassSpec, ...]
    train: Mixture
    policy: Mixture
    captioned: Sequence[CaptionDataset]
    tests: Sequence[Scored]


def open_sets(recipe: Recipe, folder: Path, drawing: Drawing) -> Sets:
    """Open everything that `recipe` names; scenes are drawn into its cache, or into `folder`.

    Raises UsageError where a sequence would be trained and tested on, where classes don't fit, and what sets raise.
    """
    data = recipe.data
    cache = Path(data.cache) if data.cache else folder / "scenes"
    around = Surroundings(Path(data.root), cache, data.height, data.width, data.workers, drawing)
    sets = _listed(recipe, around) if data.train else _mixture(recipe, around, cache)
    if recipe.contrastive.steps and not sets.captioned:
        raise UsageError(
            "no training set has captions for the contrastive stage: add rendered:seeds=0-299 to data.train, or set "
            "contrastive.steps=0"
        )
    check_apart([*sets.train.datasets, *sets.policy.datasets], [test.data for test in sets.tests])
    return sets


def _listed(recipe: Recipe, around: Surroundings) -> Sets:
    """The sets that the recipe lists. The classes are those of the first one that tells its classes."""
    data = recipe.data
    train, policy = (_Learned.open(lines, around) for lines in (data.train, data.policy or data.train))
    whole = [one for one in train if not one.partial]
    if not whole:
        raise UsageError("every set of data.train has labels=instrument: one must tell the classes to learn")
    classes = whole[0].kept_classes()
    captioned = [one.data for one in train if isinstance(one.data, CaptionDataset)]
    base, further = (
        Mixture([o.learned(classes) for o in side], [o.share for o in side], variety)
        for side, variety in ((train, data.variety), (policy, data.policy_variety))
    )
    return Sets(classes, base, further, captioned, listed_tests(recipe, classes, around))


@dataclass(frozen=True, slots=True)
class _Learned:
    """A set of the recipe's list, its share, and how its labels are read."""

    line: Description
    data: Labelled
    share: float

    @classmethod
    def open(cls, lines: Sequence[str], around: Surroundings) -> list[_Learned]:
        found = []
        for text in lines:
            line = Description.parse(text)
            found.append(cls(line, open_dataset(text, "train", around, LEARNING), line.number("share", 1.0)))
        if not sum(one.share for one in found):
            raise UsageError(f"the shares of {', '.join(lines)} are all 0: give one of them a share")
        return found

    @property
    def partial(self) -> bool:
        return partial_labels(self.line)

    def kept_classes(self) -> tuple[ClassSpec, ...]:
        return tuple(spec for spec in self.data.classes if spec.name not in self.line.names("ignore"))

    def learned(self, classes: Sequence[ClassSpec]) -> Labelled:
        take = instrument_or_not if self.partial else in_classes
        return take(self.data, classes, self.line.names("ignore"))


def partial_labels(line: Description) -> bool:
    """Whether a set's labels only tell instrument or not. Raises UsageError for another rule than that one."""
    rule = line.options.get("labels", "")
    if rule not in ("", "instrument"):
        raise UsageError(f"data set '{line.what()}': labels is '{rule}', and may only be 'instrument'")
    return bool(rule)


def listed_tests(recipe: Recipe, classes: Sequence[ClassSpec], around: Surroundings) -> list[Scored]:
    """The sets of `data.test`, each in its own classes, or as instrument or not."""
    tests = []
    for text in recipe.data.test:
        line = Description.parse(text)
        found, ignored = open_dataset(text, "test", around, SCORING), line.names("ignore")
        empty = line.kind == "empty"
        union = empty or partial_labels(line)
        mapped = by_union(found.classes, classes, ignored) if union else by_name(found.classes, classes, {}, ignored)
        severity = line.number("severity", 0)
        if severity:
            found = CorruptedDataset(found, severity, (recipe.network.height, recipe.network.width))
        tests.append(Scored(line.what(), found, mapped, union, empty))
    return tests


def _mixture(recipe: Recipe, around: Surroundings, cache: Path) -> Sets:
    """Rendered scenes; with the vocal-fold set's tissue, its frames and compositions on it by the recipe's shares."""
    data, classes = recipe.data, SCENE_CLASSES
    real = None
    if data.larynx:
        real = instrument_or_not(VocalFolds(Path(data.larynx)), classes, vocalfolds.UNSURE)

    def scenes(first: int, count: int) -> RenderedScenes:
        which = SceneSet(first, count, data.frames, data.height, data.width)
        return RenderedScenes(which, cache, data.workers, around.drawing)

    def mixed(rendered: RenderedScenes, variety: float) -> Mixture:
        if real is None:
            return Mixture([rendered], [1.0], variety)
        composed = Composed(real, rendered, recipe.seed)
        shares = [1 - data.larynx_share - data.composed_share, data.larynx_share, data.composed_share]
        return Mixture([rendered, real, composed], shares, variety)

    base = scenes(data.first_seed, data.scenes)
    policy = scenes(data.first_seed + data.scenes, data.policy_scenes)
    tests = listed_tests(recipe, classes, around)
    if recipe.scoring.scenes:
        unseen = scenes(data.first_seed + data.scenes + data.policy_scenes, recipe.scoring.scenes)
        tests.insert(0, Scored("rendered scenes, seeds not trained on", unseen, by_name(classes, classes, {}, ())))
    return Sets(classes, mixed(base, data.variety), mixed(policy, data.policy_variety), [base], tests)
