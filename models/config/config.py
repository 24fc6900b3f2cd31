"""A training recipe: a typed tree of settings, read from TOML, changed by `--set a.b=value`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cliprl.engines import UsageError
from cliprl.models.config.tree import apply_override, build, flat
from cliprl.models.data.dataset_spec import DatasetSpec

RECIPES = Path(__file__).parents[1] / "recipes"
STAGES = ("contrastive", "supervised", "reinforcement")
# Settings of the data that say where it lies or how it is read, not what is learned from it.
LOCATION_KEYS = ("cache", "root", "workers", "test")


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """The network's shape; pictures have `height` x `width` pixels.

    `tower` is a model of open_clip's by name (ViT-B-16) or by a file that describes it (model.json), with its own text
    tower, or else a timm model, beside which `embedding`, `text_width`, `text_layers` and `context` give the text tower.
    `weights` is "" (random), "efficientnet-lite0", a tag of open_clip's, or a checkpoint of its (see `weights.py`).
    `frozen_stages` of the tower's four stages stay as they started; a stage of a transformer is a quarter of its blocks.
    `pyramid` and `features` are the decoder's widths, `policy` the refiner's.
    """

    tower: str = "tf_efficientnet_lite0"
    weights: str = "efficientnet-lite0"
    height: int = 256
    width: int = 320
    embedding: int = 128
    pyramid: int = 64
    features: int = 48
    text_width: int = 128
    text_layers: int = 3
    context: int = 32
    frozen_stages: int = 2
    policy: int = 32


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What to train on: the sets that `train` lists, or where it is empty a mixture of rendered scenes and real tissue.

    Sets are described as in data/catalog.py; a folder that is not absolute is one of `root`. `policy` lists those of the
    reinforcement stage, best ones that the base has not seen ("" = `train`); `test` those that the bundle is scored on.

    Of the mixture, `larynx` is the folder of the vocal-fold set ("" = rendered scenes alone). It has `scenes` seeds from
    `first_seed` on, each with `frames` frames; the policy is trained on `policy_scenes` further ones that the base has not
    seen. Shares are of a batch. Rendered scenes are kept in `cache` ("" = the run's folder).

    `variety` scales how much views, cameras and light differ from picture to picture: 1 for what must hold on strangers'
    cameras, less for what is only to hold on the same one. `policy_variety` is the reinforcement stage's: on pictures that
    are stranger to it than those it learned from, the base errs as it will at run time.

    `workers` is how many processes draw scenes and threads make batches; 0 for as many as there are processors.
    """

    train: tuple[str, ...] = ()
    policy: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    root: str = ""
    larynx: str = ""
    cache: str = ""
    first_seed: int = 0
    scenes: int = 300
    policy_scenes: int = 60
    frames: int = 6
    height: int = 384
    width: int = 480
    workers: int = 0
    larynx_share: float = 0.15
    composed_share: float = 0.35
    variety: float = 1.0
    policy_variety: float = 1.0


@dataclass(frozen=True, slots=True)
class ContrastiveConfig:
    """The DHN-NCE stage. `temperature` and `hardness` are tau and beta of the loss."""

    steps: int = 150
    batch: int = 24
    rate: float = 3e-4
    temperature: float = 0.6
    hardness: float = 0.15


@dataclass(frozen=True, slots=True)
class SupervisedConfig:
    """The dense stage: cross-entropy and Dice. `tower_rate` is the pretrained tower's own, smaller learning rate.

    Logits are compared with the labels of every `stride`-th pixel, scaled up bilinearly as far as that is finer than their
    own grid: 1 learns where between two cells a boundary runs, at more time a step.
    """

    steps: int = 2400
    stride: int = 4
    batch: int = 12
    rate: float = 2e-3
    tower_rate: float = 3e-4
    dice: float = 0.5


@dataclass(frozen=True, slots=True)
class ReinforcementConfig:
    """The actor-critic stage; see models/training/stages/rewards.py and models/training/stages/rollout.py.

    `label_reward` is earned by a cell that becomes right, and lost by one that becomes wrong; `effort` is what an action
    other than to keep costs: agents act where it pays, and the loop can stop early. `neighbour_reward` is an agent's share in
    the rewards around it. `anchor` weighs the cross-entropy with the softmax of the rewards over `temperature`; from the first
    half of the steps on `anchor_left` of it remains: where it goes, a policy that has come to keep everywhere can't leave
    that place; where all of it stays, agents act all the time, and the loop never stops early. Cells count by their label's
    share of the batch to the power of -`rarity`: without it what is mended of the large classes is paid for by the small ones.
    `foresight` weighs the credit for what follows from an action, `critic` the critic's loss (without foresight
    there is no critic).

    To raise a class an action adds `push` logits to it, once no class is further than `bound` logits below the leading one.
    A push longer than the bound overturns any label at once: of two classes that mends the most. Of many, short pushes and a
    wide bound are better: a wrong push then costs little where the base is sure, and learning is not driven to keep.
    `control_rate` is that of the supervised control in the study of the refiner: at the policy's it drifts.
    """

    steps: int = 400
    batch: int = 8
    rate: float = 1e-3
    discount: float = 0.95
    label_reward: float = 2.0
    neighbour_reward: float = 0.5
    push: float = 3.0
    bound: float = 8.0
    effort: float = 0.05
    temperature: float = 0.1
    anchor: float = 2.0
    anchor_left: float = 0.1
    rarity: float = 0.3
    foresight: float = 0.0
    critic: float = 0.2
    control_rate: float = 1e-4


@dataclass(frozen=True, slots=True)
class CurriculumRange:
    """How a stage gets harder: of each pair the first holds at the first step, the second from `over` of the steps on.

    `severity` is the worst corruption of a picture (0..5); `zoom` how much of a picture's width a view spans at most: what
    is in it looks smaller the more it spans; `unroll` the number of refinement steps.
    """

    over: float = 0.5
    severity: tuple[float, float] = (1.5, 1.5)
    zoom: tuple[float, float] = (1.25, 1.25)
    unroll: tuple[int, int] = (3, 3)


@dataclass(frozen=True, slots=True)
class ReinforcementCurriculum(CurriculumRange):
    """The same for the reinforcement stage."""

    severity: tuple[float, float] = (1.0, 5.0)


@dataclass(frozen=True, slots=True)
class CurriculumConfig:
    """The curriculum of each stage that has one."""

    supervised: CurriculumRange = field(default_factory=CurriculumRange)
    reinforcement: ReinforcementCurriculum = field(default_factory=ReinforcementCurriculum)


@dataclass(frozen=True, slots=True)
class ScoringConfig:
    """What the finished bundle is scored on besides `data.test`: `scenes` unseen rendered ones, where the mixture is trained
    on. Of every set each `every`-th frame is scored."""

    scenes: int = 40
    every: int = 1


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a run learns, apart from the machine. `note` goes into the manifest as it is.

    `precision` is "f32", or "bf16" for mixed precision. A checkpoint is written every `save_every` steps, and pictures of
    what is learned go into the log every `draw_every`.
    """

    name: str = "small"
    note: str = ""
    seed: int = 0
    precision: str = "f32"
    save_every: int = 100
    draw_every: int = 100
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    reinforcement: ReinforcementConfig = field(default_factory=ReinforcementConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)


def load_recipe(name_or_path: str | Path = "small", overrides: Iterable[str] = ()) -> Recipe:
    """Read a shipped recipe by name or any TOML file, then apply overrides of the form "supervised.steps=10".

    Raises UsageError for a missing or garbled file, an unknown setting, or a value of the wrong type.
    """
    path = RECIPES / f"{name_or_path}.toml"
    path = path if path.is_file() else Path(name_or_path)
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise UsageError(f"no recipe '{name_or_path}': give a TOML file, or one of the shipped: {shipped}")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML ({error}): correct it") from error
    for override in overrides:
        apply_override(tree, override)
    recipe: Recipe = build(Recipe, tree)
    return recipe


def checkpoint_settings(recipe: Recipe, stage: str) -> dict[str, Any]:
    """The settings that decide what a checkpoint of `stage` holds, by their full names: its own and those of the stages
    before it, but not where data lies nor how many workers read it."""
    tree = asdict(recipe)
    data = {key: value for key, value in tree["data"].items() if key not in LOCATION_KEYS}
    data["larynx"] = bool(recipe.data.larynx)
    data |= {key: [DatasetSpec.parse(text).without_path() for text in tree["data"][key]] for key in ("train", "policy")}
    before = STAGES[: STAGES.index(stage) + 1]
    own = {key: tree[key] for key in before} | {
        "curriculum": {key: value for key, value in tree["curriculum"].items() if key in before}
    }
    return flat({"seed": recipe.seed, "precision": recipe.precision, "network": tree["network"], "data": data} | own)
