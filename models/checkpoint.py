"""Checkpoints that are either whole or not there, and the loop that every stage shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from cliprl.engines import CliprlError


class Stage(Protocol):
    """One stage of training. `step` draws all its randomness from the step's number, so that a resumed run is the same run."""

    name: str
    steps: int

    def step(self, index: int) -> Mapping[str, float]:
        """Train once and return the losses by name."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Take the place that `state` describes."""
        ...


# Told after every step: the stage, steps done, and the step's losses.
Report = Callable[[Stage, int, Mapping[str, float]], None]


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write under another name, then rename: a full disk or a kill leaves the last checkpoint as it was."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        torch.save(dict(state), partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise CliprlError(
            f"{path} could not be written ({error}): free some space; the last checkpoint stands"
        ) from error


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Raises CliprlError for one that is cut short or no checkpoint."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CliprlError(
            f"{path} is not a whole checkpoint ({type(error).__name__}): delete it to start the stage anew"
        ) from error
    return state


def run_stage(stage: Stage, folder: Path, save_every: int, report: Report) -> None:
    """Train `stage` to its end, from its checkpoint in `folder` where there is one.

    Raises CliprlError on a loss that is not a number; the last checkpoint stays.
    """
    path = folder / f"{stage.name}.pt"
    done = _resume(stage, path)
    while done < stage.steps:
        losses = stage.step(done)
        if not all(math.isfinite(v) for v in losses.values()):
            raise CliprlError(
                f"{stage.name} step {done}: loss {dict(losses)} is not finite; lower {stage.name}.rate and run again"
            )
        done += 1
        report(stage, done, losses)
        if done % max(1, save_every) == 0 or done == stage.steps:
            save(path, {"done": done, **stage.state()})


def _resume(stage: Stage, path: Path) -> int:
    if not path.is_file():
        return 0
    state = read(path)
    try:
        stage.load(state)
        return int(state["done"])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CliprlError(f"{path} is of another recipe ({reason}): give another --out, or delete it") from error
