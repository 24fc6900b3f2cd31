"""Write checkpoints atomically, and run the loop that all stages share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO, Protocol, cast

import torch

from cliprl.engines.atomic_write import atomic_write
from cliprl.engines.errors import CliprlError, UsageError, line_of, reason_of
from cliprl.models.training.parallel import process_rank

# The value of a setting that one of two recipes lacks.
ABSENT = "no such setting"


class TrainingStage(Protocol):
    """One stage of training. `step` seeds all randomness with its number, so that a resumed run equals a whole one."""

    name: str
    steps: int

    def step(self, index: int) -> Mapping[str, float]:
        """Train one step and return its losses by name. Raises NotFiniteError, with unchanged weights, for a loss like inf."""

    def state(self) -> dict[str, Any]:
        """Return the state that the next step depends on."""

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore `state`."""


# Called after every step with the stage, the finished steps, and the losses of the step.
StepCallback = Callable[[TrainingStage, int, Mapping[str, float]], None]


class NotFiniteError(CliprlError):
    """A loss or a gradient is not finite. The message names which, with its value."""


@dataclass(frozen=True, slots=True)
class CheckpointWriter:
    """Writes checkpoints to `folder` every `every` steps.

    `settings` ("supervised.rate" to value) decide the content of a checkpoint; one made with other settings is refused.
    """

    folder: Path
    every: int = 100
    settings: Mapping[str, Any] = field(default_factory=dict)

    def path(self, stage: str) -> Path:
        """Return the path of the checkpoint of a stage."""
        return self.folder / f"{stage}.pt"

    def write(self, stage: TrainingStage, done: int) -> None:
        """Write the checkpoint of a stage after `done` steps. Only the first of several processes writes."""
        if not process_rank():
            save_checkpoint(self.path(stage.name), {"done": done, "settings": dict(self.settings), **stage.state()})

    def resume(self, stage: TrainingStage) -> int:
        """Restore the checkpoint of a stage, if there is one, and return the number of finished steps.

        Raises UsageError for a checkpoint made with other settings, naming them; CliprlError for a damaged one.
        """
        state = self.read(stage.name)
        if state is None:
            return 0
        try:
            stage.load(state)
        except (KeyError, RuntimeError, ValueError) as error:
            reason = line_of(error)
            raise CliprlError(
                f"{self.path(stage.name)} is of another version of this program ({reason:.200}): delete it, or give "
                "another --out"
            ) from error
        return int(state["done"])

    def read(self, stage: str) -> dict[str, Any] | None:
        """Read the checkpoint of a stage; None if there is none. Raises as `resume` does."""
        path = self.path(stage)
        if not path.is_file():
            return None
        state = read_checkpoint(path)
        self._check(path, state)
        return state

    def _check(self, path: Path, state: Mapping[str, Any]) -> None:
        if not {"done", "settings"} <= state.keys():
            raise CliprlError(
                f"{path} is not a checkpoint of this version of cliprl-train: delete it, or give another --out"
            )
        was, now = state["settings"], self.settings
        differ = [key for key in {**was, **now} if was.get(key, ABSENT) != now.get(key, ABSENT)]
        if differ:
            changes = "; ".join(f"{key} {was.get(key, ABSENT)!r}, now {now.get(key, ABSENT)!r}" for key in differ[:4])
            more = f"; and {len(differ) - 4} more" if len(differ) > 4 else ""
            raise UsageError(
                f"{path} was made with {changes}{more}: set that back, delete the file, or give another --out"
            )


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint: a full disk, a kill or a power cut keeps the previous one."""
    watched: _WatchedFile | None = None
    try:
        with atomic_write(path, durable=True) as file:
            watched = _WatchedFile(file)
            torch.save(dict(state), cast("BinaryIO", watched))
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else watched and watched.error
        reason = (cause and cause.strerror) or reason_of(cause or error)
        remedy = "free some space" if cause else "mend that and run the same command again"
        raise CliprlError(
            f"{path} could not be written ({reason}): {remedy}; a checkpoint that was there stands"
        ) from error


class _WatchedFile:
    """Passes on what torch writes, and keeps the error of a write, in whose place torch raises one about its file format."""

    def __init__(self, file: BinaryIO) -> None:
        self.error: OSError | None = None
        self._file, self.flush = file, file.flush

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise


def read_checkpoint(path: Path, remedy: str = "delete it to start the stage anew") -> dict[str, Any]:
    """Read a checkpoint. Raises CliprlError, with the remedy, for a truncated file and for another kind of file."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if isinstance(error, UnpicklingError) and "global" in str(error).lower():
            raise CliprlError(
                f"{path} holds pickled objects besides tensors, which can run code when they are read: {remedy}"
            ) from error
        raise CliprlError(f"{path} is not a whole checkpoint ({type(error).__name__}): {remedy}") from error
    if not isinstance(state, dict):
        raise CliprlError(f"{path} holds a {type(state).__name__}, which is no checkpoint: {remedy}")
    return state


def run_stage(stage: TrainingStage, checkpoints: CheckpointWriter, report: StepCallback) -> None:
    """Train `stage` to its end, starting from its checkpoint if there is one.

    Raises CliprlError for a loss that is not finite; the last checkpoint stays.
    """
    done = checkpoints.resume(stage)
    while done < stage.steps:
        losses = _checked_step(stage, done)
        done += 1
        report(stage, done, losses)
        if done % max(1, checkpoints.every) == 0 or done == stage.steps:
            checkpoints.write(stage, done)


def _checked_step(stage: TrainingStage, index: int) -> Mapping[str, float]:
    """Train one step. Raises CliprlError for a loss that is not finite."""
    try:
        losses = stage.step(index)
        for name, value in losses.items():
            if not math.isfinite(value):
                raise NotFiniteError(f"{name} is {value}")
    except NotFiniteError as error:
        raise CliprlError(
            f"{stage.name} step {index}: {error}; the last checkpoint stands: lower {stage.name}.rate and delete "
            f"{stage.name}.pt, or give another --out"
        ) from error
    return losses
