"""A training recipe: a typed tree of settings, read from TOML, changed by `--set a.b=value`."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from cliprl.engines import UsageError

RECIPES = Path(__file__).parent / "recipes"


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
    """What to train on. `larynx` is the folder of the vocal-fold set ("" = rendered scenes alone); `cache` holds rendered scenes.

    Rendered scenes have `scenes` seeds from `first_seed` on, each with `frames` frames; the policy is trained on
    `policy_scenes` further ones that the base has not seen. Shares are of a batch.
    """

    larynx: str = ""
    cache: str = ""
    first_seed: int = 0
    scenes: int = 300
    policy_scenes: int = 60
    frames: int = 6
    height: int = 384
    width: int = 480
    workers: int = 2
    larynx_share: float = 0.15
    composed_share: float = 0.35


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
    """The dense stage: cross-entropy and Dice. `tower_rate` is the pretrained tower's own, smaller learning rate."""

    steps: int = 2400
    batch: int = 12
    rate: float = 2e-3
    tower_rate: float = 3e-4
    dice: float = 0.5


@dataclass(frozen=True, slots=True)
class ReinforcementConfig:
    """The actor-critic stage. `unroll` is T; corruption severity rises to `severity` over the first half of the steps.

    `effort` is what an action other than to keep costs: agents act where it pays, and the loop can stop early.
    `temperature` is that of the Boltzmann policy that the rollouts are drawn from, in units of reward.
    """

    steps: int = 400
    batch: int = 8
    rate: float = 3e-3
    unroll: int = 3
    discount: float = 0.95
    label_reward: float = 2.0
    neighbour_reward: float = 0.5
    effort: float = 0.1
    temperature: float = 0.1
    severity: float = 5.0


@dataclass(frozen=True, slots=True)
class ScoringConfig:
    """What the finished bundle is scored on: `scenes` unseen rendered ones, and real frames never trained on ("" = none).

    `endovis2015` holds robotic/D1, robotic/D2, rigid/OP1, rigid/OP3; `empty` is a video in which no instrument is seen.
    """

    scenes: int = 40
    endovis2015: str = ""
    empty: str = ""
    every: int = 5


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a run learns, apart from the machine. `note` goes into the manifest as it is."""

    name: str = "small"
    note: str = ""
    seed: int = 0
    save_every: int = 100
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    reinforcement: ReinforcementConfig = field(default_factory=ReinforcementConfig)
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
        _apply(tree, override)
    recipe: Recipe = _build(Recipe, tree, "")
    return recipe


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"override '{override}' is not of the form a.b=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise UsageError(f"override '{override}': '{parent}' is a value, not a section")
    tree[last] = value


def _build(kind: Any, tree: Mapping[str, Any], where: str) -> Any:
    """Make a `kind` of the TOML table `tree`, whose place in the file is `where`."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in hints:
            raise UsageError(f"unknown setting '{where}{key}': one of {', '.join(hints)}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise UsageError(f"setting '{where}{key}' is a section, not the value {value!r}")
            values[key] = _build(hint, value, f"{where}{key}.")
        else:
            values[key] = _scalar(hint, value, where + key)
    return kind(**values)


def _scalar(hint: type, value: Any, name: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise UsageError(f"setting '{name}' is {value!r}: it must be of type {hint.__name__}")
    if isinstance(value, int | float) and value < 0:
        raise UsageError(f"setting '{name}' is {value!r}: it must not be negative")
    return value
