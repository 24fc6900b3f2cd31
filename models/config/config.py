"""The settings of a training recipe, as typed dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from cliprl.engines.bundle.schema import PlainText
from cliprl.engines.bundle.validation import MAX_CONTEXT, MAX_EMBEDDING
from cliprl.models.config.value_types import (
    Count,
    DecoderKind,
    ImageSide,
    Number,
    PartialShare,
    Positive,
    PositiveNumber,
    Precision,
    Seed,
    SettingsSection,
    Severity,
    Share,
    StrictText,
    Texts,
    UnrolledSteps,
    Variety,
    ZoomFactor,
)

TRAINING_STAGES = ("contrastive", "supervised", "reinforcement")


@dataclass(frozen=True, slots=True)
class NetworkConfig(SettingsSection):
    """The network's architecture; images have `height` x `width` pixels.

    `tower` is the image backbone: an open_clip model by name (ViT-B-16) or by a file that describes it (model.json), with its
    own text encoder; or a timm model, with a text encoder of `embedding`, `text_width`, `text_layers` and `context`.
    `weights` is "" (random), "efficientnet-lite0", an open_clip tag, or the path of a checkpoint (see `weights.py`).
    `start` is the folder of an earlier run or a bundle, whose trained base replaces these weights; its classes may be others
    ("" = none).
    The first `frozen_stages` of the backbone's four stages are not trained; a stage of a transformer is a quarter of its
    blocks. `decoder` is "pyramid", the light one, or "fused", of full convolutions (see `decoder.py`); `pyramid` and `features`
    are its widths, `policy` is the refiner's.
    """

    tower: StrictText = "tf_efficientnet_lite0"
    weights: StrictText = "efficientnet-lite0"
    start: StrictText = ""
    height: ImageSide = 256
    width: ImageSide = 320
    embedding: Annotated[int, Field(ge=1, le=MAX_EMBEDDING, strict=True)] = 128
    decoder: DecoderKind = "pyramid"
    pyramid: Positive = 64
    features: Positive = 48
    text_width: Positive = 128
    text_layers: Positive = 3
    context: Annotated[int, Field(ge=3, le=MAX_CONTEXT, strict=True)] = 32
    frozen_stages: Annotated[int, Field(ge=0, le=4, strict=True)] = 2
    policy: Positive = 32


@dataclass(frozen=True, slots=True)
class DataConfig(SettingsSection):
    """The training data: the sets listed in `train`, or, if it is empty, a mixture of rendered scenes and real tissue.

    Each set is a data set line (see `data/registry.py`); a relative folder is relative to `root`. `policy` lists the sets of
    the reinforcement stage, preferably not those that the base was trained on ("" = `train`). `test` lists the sets that
    the finished bundle is scored on.

    In the mixture, `larynx` is the folder of the vocal-fold set ("" = rendered scenes alone). The mixture renders `scenes`
    seeds from `first_seed` on, each with `frames` frames, and `policy_scenes` further ones for the policy. Shares are
    shares of a batch. Rendered scenes are cached in `cache` ("" = the run's folder).

    `variety` scales the augmentation of view, camera and light: 1 to generalize to unknown cameras, less for one known
    camera. `policy_variety` is the same for the reinforcement stage: stronger augmentation makes the base err as it does at
    run time.

    `workers` is the number of rendering processes and of batch threads; 0 for one for each processor.
    """

    train: Texts = ()
    policy: Texts = ()
    test: Texts = ()
    root: StrictText = ""
    larynx: StrictText = ""
    cache: StrictText = ""
    first_seed: Seed = 0
    scenes: Count = 300
    policy_scenes: Count = 60
    frames: Positive = 6
    height: ImageSide = 384
    width: ImageSide = 480
    workers: Count = 0
    larynx_share: Share = 0.15
    composed_share: Share = 0.35
    variety: Variety = 1.0
    policy_variety: Variety = 1.0


@dataclass(frozen=True, slots=True)
class ContrastiveConfig(SettingsSection):
    """The contrastive stage with the DHN-NCE loss, whose tau is `temperature` and whose beta is `hardness`."""

    steps: Count = 150
    batch: Positive = 24
    rate: Number = 3e-4
    temperature: PositiveNumber = 0.6
    hardness: Number = 0.15


@dataclass(frozen=True, slots=True)
class SupervisedConfig(SettingsSection):
    """The supervised stage: cross-entropy and Dice. `tower_rate` is the smaller learning rate of the pretrained backbone.

    Logits are compared with the labels of every `stride`-th pixel. A stride finer than the network's grid of 4 upsamples the
    logits bilinearly: the boundary between two cells is learned, at the cost of time.

    The stage ends with the exponential moving average of its weights, of decay `average` (0: with the last weights). Of the
    weights that `network.start` gave, `start_share` stays in them, as in WiSE-FT (Wortsman et al., 2022): less is forgotten.
    """

    steps: Count = 2400
    stride: Count = 4
    batch: Positive = 12
    rate: Number = 2e-3
    tower_rate: Number = 3e-4
    dice: Number = 0.5
    average: PartialShare = 0.0
    start_share: PartialShare = 0.0


@dataclass(frozen=True, slots=True)
class ReinforcementConfig(SettingsSection):
    """The actor-critic stage; see `training/stages/rewards.py` and `training/stages/rollout.py`.

    Rewards: a cell that becomes right earns `label_reward`, one that becomes wrong loses it; each action but "keep" costs
    `effort`, so that agents act where it pays and the loop can stop early. `neighbour_reward` is an agent's share of the
    rewards around it, `discount` weighs later rewards.

    Imitation: `anchor` weighs the imitation loss, a cross-entropy with the softmax of the rewards over `temperature`. From
    half of the steps on, `anchor_left` of the weight remains: with 0 a policy that always keeps cannot recover; with 1
    agents act at every step and the loop never stops early.

    Cells are weighted by their label's share of the batch to the power of -`rarity`; with 0, small classes pay for what is
    corrected in the large ones. `foresight` weighs the advantage of the sampled action, `critic` the critic's loss (there is
    no critic without foresight).

    Actions: an action that raises a class adds `push` logits to it, after every class has been raised to at most `bound`
    logits below the leading one. A push beyond the bound overturns any label at once, which suits two classes; short pushes
    and a wide bound suit many classes, because a wrong push then costs little where the base is sure.

    `control_rate` is the learning rate of the supervised control in the refiner study; it diverges at the policy's rate.
    """

    steps: Count = 400
    batch: Positive = 8
    rate: Number = 1e-3
    discount: Number = 0.95
    label_reward: Number = 2.0
    neighbour_reward: Number = 0.5
    push: Number = 3.0
    bound: Number = 8.0
    effort: Number = 0.05
    temperature: PositiveNumber = 0.1
    anchor: Number = 2.0
    anchor_left: Number = 0.1
    rarity: Number = 0.3
    foresight: Number = 0.0
    critic: Number = 0.2
    control_rate: Number = 1e-4


@dataclass(frozen=True, slots=True)
class CurriculumRange(SettingsSection):
    """The difficulty of a stage: each pair holds the value at the first step and the value from `over` of the steps on.

    `severity` is the strongest corruption of an image (0..5); `zoom` the largest share of the image's width that a view
    spans (wider views show smaller objects); `unroll` the number of refinement steps.
    """

    over: Number = 0.5
    severity: tuple[Severity, Severity] = (1.5, 1.5)
    zoom: tuple[ZoomFactor, ZoomFactor] = (1.25, 1.25)
    unroll: tuple[UnrolledSteps, UnrolledSteps] = (3, 3)


@dataclass(frozen=True, slots=True)
class ReinforcementCurriculum(CurriculumRange):
    """The difficulty of the reinforcement stage."""

    severity: tuple[Severity, Severity] = (1.0, 5.0)


@dataclass(frozen=True, slots=True)
class CurriculumConfig(SettingsSection):
    """The curriculum of each stage that has one."""

    supervised: CurriculumRange = field(default_factory=CurriculumRange)
    reinforcement: ReinforcementCurriculum = field(default_factory=ReinforcementCurriculum)


@dataclass(frozen=True, slots=True)
class WeakConfig(SettingsSection):
    """Training on pseudo-labels, the `folder:` sets of `data.train`, in `rounds`.

    After each round but the last, the networks of the last `snapshots` moments of the supervised stage, `interval` steps apart,
    label these sets anew: a pixel on which they disagree is unknown in the next round, which starts from the beginning.
    """

    rounds: Positive = 1
    snapshots: Positive = 3
    interval: Positive = 25


@dataclass(frozen=True, slots=True)
class ScoringConfig(SettingsSection):
    """Further scores of the finished bundle: `scenes` unseen rendered scenes if the mixture was trained on.

    Every `every`-th frame of each set is scored.
    """

    scenes: Count = 40
    every: Positive = 1


@dataclass(frozen=True, slots=True)
class Recipe(SettingsSection):
    """All settings that decide what a run learns, independent of the machine. The manifest repeats `note`.

    `precision` is "f32", or "bf16" for mixed precision, which a CPU without such instructions computes in f32. A checkpoint is
    written every `save_every` steps, and images of what is learned are logged every `draw_every` steps.
    """

    name: Annotated[PlainText, Field(strict=True)] = "small"
    note: Annotated[str, Field(strict=True, max_length=10_000)] = ""
    seed: Seed = 0
    precision: Precision = "f32"
    save_every: Count = 100
    draw_every: Count = 100
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    reinforcement: ReinforcementConfig = field(default_factory=ReinforcementConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    weak: WeakConfig = field(default_factory=WeakConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
