"""Open and check the training and test data of a recipe before the first step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.config.config import Recipe
from cliprl.models.data.augmentation.copy_paste import CopyPasteDataset
from cliprl.models.data.batch_loader import Mixture
from cliprl.models.data.dataset_spec import DatasetSpec, severity_of
from cliprl.models.data.image_mask_dataset import CaptionDataset, LabelledDataset, sequence_names
from cliprl.models.data.label_mapping import (
    UNLABELLED,
    ClassMap,
    map_by_name,
    map_to_instrument,
    with_classes,
    with_partial_labels,
)
from cliprl.models.data.protocol import shipped_protocol
from cliprl.models.data.registry import DatasetContext, check_line, dataset_kind, open_dataset, portable_lines
from cliprl.models.data.sets import vocalfolds
from cliprl.models.data.sets.corrupted_dataset import CorruptedDataset
from cliprl.models.data.sets.rendered import RenderedScenes, RenderedSpec
from cliprl.models.data.sets.vocalfolds import VocalFolds
from cliprl.models.data.splits import check_disjoint, refuse_copies
from cliprl.pipeline.synthetic import SCENE_CLASSES

# Options of a training line: the share of a batch, partial labels, ignored classes, and classes under other names.
TRAIN_OPTIONS = ("share", "labels", "ignore", "map")
# Options of a test line; `severity` corrupts the images.
TEST_OPTIONS = ("labels", "ignore", "severity")
# Called with the number of rendered scenes and their total.
ProgressCallback = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class TestDataset:
    """A test data set and the mapping of its classes to the network's.

    `union` scores instrument or not; `empty` marks data without any instrument. `use` is "chosen" or "reported", or "" for
    data that the evaluation protocol does not list.
    """

    title: str
    data: LabelledDataset
    classes: ClassMap
    union: bool = False
    empty: bool = False
    use: str = ""


@dataclass(frozen=True, slots=True)
class RunDatasets:
    """The data of a run: the trained classes, the mixtures of its stages, the data with captions, and the test data."""

    classes: tuple[ClassSpec, ...]
    train: Mixture
    policy: Mixture
    captioned: Sequence[CaptionDataset]
    tests: Sequence[TestDataset]


def open_run_datasets(recipe: Recipe, folder: Path, progress: ProgressCallback) -> RunDatasets:
    """Open all data that `recipe` names; scenes are rendered into its cache, or into `folder`.

    Raises UsageError if training and test data share a sequence or an image, or classes do not match, and the errors of the data
    sets.
    """
    data = recipe.data
    cache = Path(data.cache) if data.cache else folder / "scenes"
    context = DatasetContext(Path(data.root), "data.root", cache, data.height, data.width, data.workers, progress)
    # A wrong line is found before scenes are rendered, which may take hours.
    for lines, further in (((*data.train, *data.policy), TRAIN_OPTIONS), (data.test, TEST_OPTIONS)):
        for text in lines:
            check_line(text, context, further)
    sets = _listed(recipe, context) if data.train else _mixture(recipe, context, cache)
    if recipe.contrastive.steps and not sets.captioned:
        raise UsageError(
            "no training set has captions for the contrastive stage: add rendered:seeds=0-299 to data.train, or set "
            "contrastive.steps=0"
        )
    _refuse_empty(recipe, sets)
    sides = ([*sets.train.datasets, *sets.policy.datasets], [test.data for test in sets.tests])
    check_disjoint(*sides)
    refuse_copies(*sides)
    return sets


def _refuse_empty(recipe: Recipe, sets: RunDatasets) -> None:
    """Raise UsageError for data without any frame that a stage or the scoring would read."""
    policy = sets.policy.datasets if recipe.reinforcement.steps else ()
    tests = [test.data for test in sets.tests]
    for key, found in (("train", sets.train.datasets), ("policy", policy), ("test", tests)):
        for one in found:
            if not len(one):
                raise UsageError(
                    f"data.{key}: '{one.name}' holds no frames: name others, or raise data.scenes and data.policy_scenes"
                )


def _listed(recipe: Recipe, context: DatasetContext) -> RunDatasets:
    """Open the listed data sets. The trained classes are those of the first one without partial labels."""
    data = recipe.data
    train, policy = (TrainingDataset.open(lines, context) for lines in (data.train, data.policy or data.train))
    whole = [one for one in train if not one.partial]
    if not whole:
        raise UsageError("every set of data.train has labels=instrument: one must give the classes to learn")
    classes = whole[0].kept_classes()
    captioned = [one.data for one in train if isinstance(one.data, CaptionDataset)]
    base, further = (
        Mixture([o.learned(classes) for o in side], [o.share for o in side], variety)
        for side, variety in ((train, data.variety), (policy, data.policy_variety))
    )
    return RunDatasets(classes, base, further, captioned, open_test_datasets(recipe, classes, context))


@dataclass(frozen=True, slots=True)
class TrainingDataset:
    """A training data set with its share of a batch and its label options."""

    spec: DatasetSpec
    data: LabelledDataset
    share: float

    @classmethod
    def open(cls, lines: Sequence[str], context: DatasetContext) -> list[TrainingDataset]:
        """Open training lines. Raises UsageError if all their shares are 0."""
        found = []
        for text in lines:
            spec = DatasetSpec.parse(text)
            renamed_classes(spec)
            found.append(cls(spec, open_dataset(text, "train", context, TRAIN_OPTIONS), spec.number("share", 1.0)))
        if not sum(one.share for one in found):
            raise UsageError(f"the shares of {', '.join(lines)} are all 0: give one of them a share")
        return found

    @property
    def partial(self) -> bool:
        """Return whether its labels are instrument or not."""
        return partial_labels(self.spec)

    def kept_classes(self) -> tuple[ClassSpec, ...]:
        """Return its classes without the ignored ones."""
        kept = (spec for spec in self.data.classes if spec.name not in self.spec.names("ignore"))
        return tuple(replace(spec, name="background") if spec.name == UNLABELLED else spec for spec in kept)

    def learned(self, classes: Sequence[ClassSpec]) -> LabelledDataset:
        """Return the data with labels for `classes`. Raises UsageError for a class that is not among them."""
        ignored, renamed = self.spec.names("ignore"), renamed_classes(self.spec)
        if self.partial:
            return with_partial_labels(self.data, classes, ignored, renamed)
        return with_classes(self.data, classes, ignored)


def partial_labels(spec: DatasetSpec) -> bool:
    """Return whether a line asks for instrument-or-not labels. Raises UsageError for an unknown value."""
    rule = spec.options.get("labels", "")
    if rule not in ("", "instrument"):
        raise UsageError(f"data set '{spec.without_path()}': labels is '{rule}', and may only be 'instrument'")
    return bool(rule)


def renamed_classes(spec: DatasetSpec) -> dict[str, str]:
    """Return the option `map` of a line with partial labels. Raises UsageError for another form, and on another line."""
    pairs = [text.split(":") for text in spec.names("map")]
    if any(len(pair) != 2 or not all(pair) for pair in pairs) or (pairs and not partial_labels(spec)):
        raise UsageError(
            f"data set '{spec.without_path()}': map is '{spec.options['map']}': give map=CLASS:TRAINED,CLASS:TRAINED "
            "together with labels=instrument"
        )
    return {pair[0]: pair[1] for pair in pairs}


def open_test_datasets(recipe: Recipe, classes: Sequence[ClassSpec], context: DatasetContext) -> list[TestDataset]:
    """Open the sets of `data.test`, each with its own classes, or as instrument or not."""
    tests = []
    for text, title in zip(recipe.data.test, portable_lines(recipe.data.test), strict=True):
        spec = DatasetSpec.parse(text)
        found, ignored = open_dataset(text, "test", context, TEST_OPTIONS), spec.names("ignore")
        empty = dataset_kind(text).no_instrument
        union = empty or partial_labels(spec)
        mapped = (
            map_to_instrument(found.classes, classes, ignored)
            if union
            else map_by_name(found.classes, classes, {}, ignored)
        )
        severity = severity_of(spec)
        if severity:
            found = CorruptedDataset(found, severity, (recipe.network.height, recipe.network.width))
        use = shipped_protocol().use_of(text, sequence_names(found)) or ""
        tests.append(TestDataset(title, found, mapped, union, empty, use))
    return tests


def _mixture(recipe: Recipe, context: DatasetContext, cache: Path) -> RunDatasets:
    """Open rendered scenes and, if the recipe names it, the vocal-fold set: its frames, and instruments pasted on its tissue."""
    data, classes = recipe.data, SCENE_CLASSES
    real = None
    if data.larynx:
        real = with_partial_labels(VocalFolds(Path(data.larynx)), classes, vocalfolds.UNSURE)

    def scenes(first: int, count: int) -> RenderedScenes:
        which = RenderedSpec(first, count, data.frames, data.height, data.width)
        return RenderedScenes(which, cache, data.workers, context.progress)

    def mixed(rendered: RenderedScenes, variety: float) -> Mixture:
        if real is None:
            return Mixture([rendered], [1.0], variety)
        composed = CopyPasteDataset(real, rendered, recipe.seed)
        shares = [1 - data.larynx_share - data.composed_share, data.larynx_share, data.composed_share]
        return Mixture([rendered, real, composed], shares, variety)

    base = scenes(data.first_seed, data.scenes)
    policy = scenes(data.first_seed + data.scenes, data.policy_scenes)
    tests = open_test_datasets(recipe, classes, context)
    if recipe.scoring.scenes:
        unseen = scenes(data.first_seed + data.scenes + data.policy_scenes, recipe.scoring.scenes)
        tests.insert(
            0, TestDataset("rendered scenes, seeds not trained on", unseen, map_by_name(classes, classes, {}, ()))
        )
    return RunDatasets(classes, mixed(base, data.variety), mixed(policy, data.policy_variety), [base], tests)
