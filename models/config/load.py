"""Load a training recipe: read TOML, apply `--set a.b=value`, and validate the result."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cliprl.engines import UsageError, first_fault
from cliprl.engines.errors import FieldFault
from cliprl.models.config.config import TRAINING_STAGES, NetworkConfig, Recipe
from cliprl.models.config.toml_file import read_toml
from cliprl.models.config.tune_config import TuneConfig
from cliprl.models.data.registry import portable_lines

RECIPES_FOLDER = Path(__file__).parents[1] / "recipes"
# Data settings that say where the data is or how it is read, not what is learned from it.
LOCATION_KEYS = ("cache", "root", "workers", "test")
# The rules behind pydantic's error types, with the bounds in braces.
_RULES = {
    "int_type": "it must be of type int",
    "float_type": "it must be of type float",
    "string_type": "it must be of type str",
    "tuple_type": "it must be a list",
    "finite_number": "it must be finite",
    "greater_than_equal": "it must be at least {ge}",
    "greater_than": "it must be more than {gt}",
    "less_than": "it must be less than {lt}",
    "less_than_equal": "it must be at most {le}",
    "literal_error": "it must be {expected}",
    "string_too_short": "it must not be empty",
    "string_too_long": "it must have at most {max_length} characters",
    "string_pattern_mismatch": "it must be one line of printable characters",
    "missing": "its list must have two numbers",
    "too_long": "its list must have two numbers",
}
_ADAPTER, _TUNE_ADAPTER = TypeAdapter(Recipe), TypeAdapter(TuneConfig)


def load_recipe(name_or_path: str | Path = "small", overrides: Iterable[str] = ()) -> Recipe:
    """Load a shipped recipe by name, or a TOML file, and apply overrides of the form "supervised.steps=10".

    Raises UsageError for a missing or malformed file, an unknown setting, or a bad value.
    """
    path = RECIPES_FOLDER / f"{name_or_path}.toml"
    path = path if path.is_file() else Path(name_or_path)
    if not path.is_file():
        shipped = sorted(p.stem for p in RECIPES_FOLDER.glob("*.toml"))
        near = get_close_matches(str(name_or_path), shipped, 1)
        hint = f"did you mean {near[0]}? Give" if near else "give"
        raise UsageError(f"no recipe '{name_or_path}': {hint} a TOML file, or one of the shipped: {', '.join(shipped)}")
    tree = read_toml(path)
    for override in overrides:
        apply_override(tree, override)
    if not tree:
        raise UsageError(
            f"{path} has no settings, so that the defaults would be trained: write a setting into it, or name a recipe"
        )
    try:
        recipe: Recipe = _ADAPTER.validate_python(tree)
    except ValidationError as error:
        raise UsageError(_message(first_fault(error), Recipe())) from error
    check_recipe(recipe)
    return recipe


def check_recipe(recipe: Recipe) -> None:
    """Raise UsageError for settings that are right by themselves, but not together."""
    data, start_share = recipe.data, recipe.supervised.start_share
    if start_share and not recipe.network.start:
        raise UsageError(
            f"setting 'supervised.start_share' is {start_share} without network.start: it would average with untrained weights; "
            "set network.start to the folder of an earlier run or a bundle, or supervised.start_share=0"
        )
    if recipe.contrastive.steps and recipe.contrastive.batch < 2:
        raise UsageError(
            "setting 'contrastive.batch' is 1: it must be at least 2, an image and another one that its caption does not fit"
        )
    if data.larynx and data.larynx_share + data.composed_share > 1:
        raise UsageError(
            f"settings 'data.larynx_share' and 'data.composed_share' are {data.larynx_share} and {data.composed_share}: "
            "together they must be at most 1; the rest is the share of rendered scenes"
        )


def load_tune_config(overrides: Iterable[str] = ()) -> TuneConfig:
    """Return the default settings of tuning with overrides. Raises UsageError for an unknown setting or a bad value."""
    tree: dict[str, Any] = {}
    for override in overrides:
        apply_override(tree, override)
    try:
        return _TUNE_ADAPTER.validate_python(tree)
    except ValidationError as error:
        raise UsageError(_message(first_fault(error), TuneConfig())) from error


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Set a value of `tree` from "a.b=value"; a value that is not TOML is text. Raises UsageError for another form."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"override '{override}' is not of the form a.b=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        value = text
    *parents, last = key.strip().split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise UsageError(f"override '{override}': '{parent}' is a value, not a section")
    tree[last] = value


def _message(fault: FieldFault, defaults: Recipe | TuneConfig) -> str:
    """Return one line for a wrong setting: its full name, its value, and the rule."""
    names = [part for part in fault.path if isinstance(part, str)]
    name, value = ".".join(names), repr(fault.value)[:80]
    if fault.unknown:
        known = _known_settings(defaults, names[:-1])
        elsewhere = [full for full in _flatten(asdict(defaults)) if full.split(".")[-1] == names[-1]]
        near = " or ".join(elsewhere[:3] or get_close_matches(names[-1], known, 1))
        hint = f"did you mean {near}? It must be " if near else ""
        return f"unknown setting '{name}': {hint}one of {', '.join(known)}"
    if fault.kind == "dataclass_type":
        first_of_section = _known_settings(defaults, names)[0]
        return f"setting '{name}' is a section, not the value {value}: set {name}.{first_of_section}, for example"
    return f"setting '{name}' is {value}: {_rule(fault)}"


def _rule(fault: FieldFault) -> str:
    if fault.bounds.get("ge") == 0:
        return "it must not be negative"
    if fault.kind not in _RULES:
        return fault.rule
    bounds = {key: f"{bound:g}" if isinstance(bound, float) else bound for key, bound in fault.bounds.items()}
    return _RULES[fault.kind].format(**bounds)


def _known_settings(owner: Any, section: Iterable[str]) -> list[str]:
    """Return the names of the settings of a section of `owner`."""
    for name in section:
        owner = getattr(owner, name)
    return [part.name for part in fields(owner)]


def checkpoint_settings(recipe: Recipe, stage: str) -> dict[str, Any]:
    """Return the settings that decide the content of a checkpoint of `stage`, by full name.

    These are the settings of that stage and the ones before it, without the places of data and the number of workers.
    """
    tree = asdict(recipe)
    data = {key: value for key, value in tree["data"].items() if key not in LOCATION_KEYS}
    data["larynx"] = bool(recipe.data.larynx)
    data |= {key: portable_lines(tree["data"][key]) for key in ("train", "policy")}
    stages = TRAINING_STAGES[: TRAINING_STAGES.index(stage) + 1]
    settings = {key: tree[key] for key in stages} | {
        "curriculum": {key: value for key, value in tree["curriculum"].items() if key in stages}
    }
    network = tree["network"]
    # Checkpoints of versions without these settings stay valid, and where a start lies does not matter.
    if start := network.pop("start"):
        network["start"] = Path(start).name
    if network["decoder"] == NetworkConfig().decoder:
        del network["decoder"]
    common = {"seed": recipe.seed, "precision": recipe.precision, "network": network, "data": data}
    return _flatten(common | settings)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested dictionaries by full name, "supervised.rate". Tuples become lists."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            values |= _flatten(value, f"{prefix}{key}.")
        else:
            values[prefix + key] = list(value) if isinstance(value, tuple) else value
    return values
