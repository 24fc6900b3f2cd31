"""Scenes with the labels of an annotator who lacks some classes, beside captions that name them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.config.config import Recipe
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.sample import Image, Sample
from cliprl.models.data.sets.rendered import RenderedScenes, RenderedSpec
from cliprl.models.training.callbacks import TrainingCallback
from cliprl.pipeline.synthetic import SCENE_CLASSES

# The first seed of further scenes, behind those that studies train on, choose on and score.
FURTHER_SEED = 10_000


@dataclass(frozen=True, slots=True)
class NamedClass:
    """A class without masks, and the `prompt` that names it in captions and at run time."""

    left_out: ClassSpec
    prompt: str

    @property
    def number(self) -> int:
        """The index of the class in the labels of rendered scenes."""
        return SCENE_CLASSES.index(self.left_out)

    @property
    def spec(self) -> ClassSpec:
        """The class with the prompt as its only text."""
        return ClassSpec(self.left_out.name, self.left_out.color, self.left_out.kind, (self.prompt,))

    def new_words(self) -> list[str]:
        """The prompt's words that no prompt of another class has. Raises UsageError where there is none."""
        kept = [spec for spec in SCENE_CLASSES if spec != self.left_out]
        known = " ".join(" ".join((spec.name, *spec.prompts)) for spec in kept).lower().replace("-", " ").split()
        found = [word for word in self.prompt.lower().split() if word not in known]
        if not found:
            raise UsageError(
                f"every word of '{self.prompt}' is in another class's prompts: give --class NAME=WORDS a new word"
            )
        return found

    def is_named(self, caption: str) -> bool:
        """Return whether a caption has all new words of the prompt."""
        return set(self.new_words()) <= set(caption.lower().replace(",", " ").split())


def named_class(text: str) -> NamedClass:
    """Read "NAME=WORDS". Raises UsageError for an unknown class, and for words that prompts of other classes have."""
    name, _, prompt = text.partition("=")
    found = [spec for spec in SCENE_CLASSES[1:] if spec.name == name]
    if not found or not prompt.strip():
        raise UsageError(
            f"--class '{text}': give NAME=WORDS, with a name of {', '.join(spec.name for spec in SCENE_CLASSES[1:])}"
        )
    named = NamedClass(found[0], prompt.strip())
    named.new_words()
    return named


def scenes_by_caption(captions: Sequence[str], left_out: Sequence[NamedClass]) -> tuple[list[int], list[list[int]]]:
    """Return the scenes whose captions name none of the left-out classes, and for each of these those that name it alone.

    In a scene whose caption names two it is unknown which is which. Raises UsageError for a class that no scene names alone.
    """
    plain: list[int] = []
    named: list[list[int]] = [[] for _ in left_out]
    for index, caption in enumerate(captions):
        found = [place for place, one in enumerate(left_out) if one.is_named(caption)]
        if len(found) < 2:
            (named[found[0]] if found else plain).append(index)
    for one, scenes in zip(left_out, named, strict=True):
        if not scenes:
            raise UsageError(f"no caption names '{one.prompt}' alone: raise data.scenes")
    return plain, named


@dataclass(frozen=True, slots=True)
class WordScenes:
    """Scenes to train on and to score, and which of the first the captions call what; classes with and without the words.

    `plain` scenes name no left-out class, `named` has those that name one of them alone. `numbers` are those of the left-out.
    """

    train: RenderedScenes
    unseen: RenderedScenes
    plain: list[int]
    named: list[list[int]]
    numbers: list[int]
    known: tuple[ClassSpec, ...]
    classes: tuple[ClassSpec, ...]


def open_scenes(recipe: Recipe, left_out: Sequence[NamedClass], folder: Path, callback: TrainingCallback) -> WordScenes:
    """Open the scenes of a recipe, and render those that are not in its cache or `folder`/scenes."""
    data = recipe.data
    train = _rendered(recipe, data.first_seed, data.scenes, folder, callback)
    unseen = _rendered(recipe, data.first_seed + data.scenes, recipe.scoring.scenes, folder, callback)
    plain, named = scenes_by_caption([train.caption(index) for index in range(len(train))], left_out)
    known = tuple(spec for spec in SCENE_CLASSES if all(spec != one.left_out for one in left_out))
    words = {one.left_out.name: one.spec for one in left_out}
    classes = tuple(words.get(spec.name, spec) for spec in SCENE_CLASSES)
    return WordScenes(train, unseen, plain, named, [one.number for one in left_out], known, classes)


def further_scenes(
    scenes: WordScenes,
    count: int,
    recipe: Recipe,
    left_out: Sequence[NamedClass],
    folder: Path,
    callback: TrainingCallback,
) -> WordScenes:
    """Return `count` other scenes to train on, from seed FURTHER_SEED on, in place of those of `scenes`."""
    train = _rendered(recipe, FURTHER_SEED, count, folder, callback)
    plain, named = scenes_by_caption([train.caption(index) for index in range(len(train))], left_out)
    return replace(scenes, train=train, plain=plain, named=named)


def _rendered(recipe: Recipe, first: int, count: int, folder: Path, callback: TrainingCallback) -> RenderedScenes:
    data = recipe.data
    which = RenderedSpec(first, count, data.frames, data.height, data.width)
    return RenderedScenes(which, Path(data.cache) if data.cache else folder / "scenes", data.workers, callback.on_scene)


def labels_without(labels: Image, missing: Sequence[int]) -> Image:
    """Return labels uint8 (H, W) of an annotator without the classes `missing`: background, class 0, is in their place."""
    return np.where(np.isin(labels, missing), 0, labels).astype(np.uint8)


class RelabelledScenes(LabelledDataset):
    """Some of the scenes, by their `indices`, with labels that `relabel` makes of a scene's index and its labels."""

    def __init__(
        self,
        scenes: RenderedScenes,
        indices: Sequence[int],
        classes: Sequence[ClassSpec],
        relabel: Callable[[int, Image], Image],
    ) -> None:
        self.scenes, self.indices, self.relabel = scenes, indices, relabel
        self.name, self.classes = scenes.name, tuple(classes)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        sample = self.scenes[self.indices[index]]
        return Sample(sample.image, self.relabel(self.indices[index], sample.labels), sample.sequence)

    def sequence(self, index: int) -> str:
        """Return the sequence of a sample."""
        return self.scenes.sequence(self.indices[index])
