"""The settings of tuning a bundle, as typed dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field

from cliprl.models.config.value_types import (
    Count,
    ImageSide,
    Number,
    PartialShare,
    Positive,
    Seed,
    SettingsSection,
    StrictText,
    Texts,
    TuningPrecision,
    Variety,
)


@dataclass(frozen=True, slots=True)
class OldDataConfig(SettingsSection):
    """The data that a tuned bundle must not forget: rendered `scenes` of `frames` frames, and the listed sets.

    Each line of `sets` is a data set line; a relative folder is relative to `root`. `test_scenes` further scenes and a part of
    each set are held out. Rendered scenes are cached in `cache` ("" = the user's cache). `workers` as in a recipe.
    """

    sets: Texts = ()
    root: StrictText = ""
    cache: StrictText = ""
    scenes: Count = 60
    test_scenes: Count = 12
    frames: Positive = 2
    height: ImageSide = 384
    width: ImageSide = 480
    workers: Count = 0


@dataclass(frozen=True, slots=True)
class TuneConfig(SettingsSection):
    """The settings of `cliprl-train tune`.

    `views` augmented views of the new frames and as many of the old ones are encoded once up to the trained layers: all that
    follow the backbone, and the last `blocks` operators of the backbone with `backbone_rate` times the learning rate. Then
    `steps` batches of views are learned, `share` of each from the new frames. `distillation` weighs the divergence from the
    bundle's own probabilities on old views. `variety` scales the augmentation.

    Frames are refused before training if their masks fit the bundle's own masks better by `misfit` points of IoU after they are
    moved, inverted, mirrored, turned or given to other frames (100: never). `precision` is "f32", "bf16", or "auto" for bf16 if
    the CPU computes it natively.
    """

    seed: Seed = 0
    precision: TuningPrecision = "auto"
    views: Positive = 320
    steps: Count = 120
    batch: Positive = 8
    rate: Number = 3e-4
    backbone_rate: Number = 0.5
    blocks: Count = 33
    share: PartialShare = 0.5
    distillation: Number = 0.5
    dice: Number = 0.5
    variety: Variety = 1.0
    misfit: Number = 15.0
    data: OldDataConfig = field(default_factory=OldDataConfig)
