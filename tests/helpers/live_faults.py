"""Segmenters that fail by real means, made in the worker process; and one that finds a bright square on grey."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cliprl.engines import ClassSpec
from cliprl.pipeline import Frame, Segmentation
from cliprl.pipeline.core.segmentation import Instance, Instances
from cliprl.pipeline.core.viewport import full_viewport

CLASSES = (ClassSpec("tissue", (0, 0, 0), "background"), ClassSpec("target", (0, 255, 0), "instrument"))
# The network's picture and its grid, as the shipped bundle's.
NETWORK, GRID = (256, 320), (64, 80)
BRIGHT = 180


def seen(frame: Frame) -> Segmentation:
    """Where the luma is bright, on the grid: an honest segmenter, for pictures whose target is."""
    view = full_viewport(frame.height, frame.width, *NETWORK)
    x, y, width, height = view.placed
    rows = ((np.arange(GRID[0]) + 0.5) * 4 - y) * frame.height / height
    columns = ((np.arange(GRID[1]) + 0.5) * 4 - x) * frame.width / width
    inside = ((rows >= 0) & (rows < frame.height))[:, None] & ((columns >= 0) & (columns < frame.width))[None]
    picked = frame.luma[np.clip(rows, 0, frame.height - 1).astype(int)][
        :, np.clip(columns, 0, frame.width - 1).astype(int)
    ]
    target = ((picked > BRIGHT) & inside).astype(np.float32)
    return Segmentation(target.astype(np.uint8), np.stack([1 - target, target]), view, 1.0, 1)


@dataclass(frozen=True)
class Make:
    """Makes the honest segmenter, `seconds` slow; a file in `faults` with a fault's name makes it fail so, once."""

    seconds: float = 0.0
    faults: Path | None = None

    def __call__(self) -> Callable[[Frame], Segmentation]:
        return self._segment

    def _segment(self, frame: Frame) -> Segmentation:
        time.sleep(self.seconds)
        for name, fault in FAULTS.items():
            if self.faults is not None and (self.faults / name).exists():
                (self.faults / name).unlink()
                return fault(frame)
        return seen(frame)


def _raise(frame: Frame) -> Segmentation:
    raise RuntimeError("planted:\nthe engine broke")


def _hang(frame: Frame) -> Segmentation:
    time.sleep(5)
    return seen(frame)


def _nan(frame: Frame) -> Segmentation:
    mask = seen(frame)
    mask.probabilities[:] = np.nan
    return mask


def _die(frame: Frame) -> Segmentation:
    os.kill(os.getpid(), signal.SIGKILL)
    return seen(frame)


FAULTS = {"raise": _raise, "hang": _hang, "nan": _nan, "die": _die}


@dataclass(frozen=True)
class Broken:
    """Can't even be made."""

    def __call__(self) -> Callable[[Frame], Segmentation]:
        raise FileNotFoundError("no bundle here")


@dataclass(frozen=True)
class MakeTracked(Make):
    """Makes a segmenter whose target is instrument 1."""

    def __call__(self) -> Callable[[Frame], Segmentation]:
        return self._track

    def _track(self, frame: Frame) -> Segmentation:
        found = self._segment(frame)
        ids = found.labels.astype(np.uint16)
        items = (Instance(1, "target", 1, int(ids.sum())),) if ids.any() else ()
        found.instances = Instances(ids, items)
        return found
