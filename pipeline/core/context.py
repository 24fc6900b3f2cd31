"""The state of one frame between decoding and output, and the stages that fill it in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport

Item = TypeVar("Item")
# Marks a named range of work for a profiler: a context manager that is entered on the thread that does the work.
Profiler = Callable[[str], AbstractContextManager[object]]


@dataclass(frozen=True, slots=True)
class Stage(Generic[Item]):
    """A named step of work on each item of a stream. `run` changes the item in place."""

    name: str
    run: Callable[[Item], None]


@dataclass(slots=True, eq=False)
class FrameContext:
    """One frame on its way through the stages of a stream.

    Each stage reads the fields that earlier stages set. The arrays are reused: they are valid until the segmenter has
    processed as many further frames as it has buffers.

    view, image, is_cut: set by "prepare". image is the network input, uint8 (1, H, W, 3); is_cut is true where a new shot starts.
    features (1, D, h, w), logits (1, K, h, w): set by "encode"; the logits are those before refinement.
    segmentation: set by "refine"; None in a stream without a segmenter.
    device_state: for a segmenter whose device still works on the frame; None on the CPU.
    """

    frame: Frame
    profiler: Profiler = nullcontext
    segmentation: Segmentation | None = None
    device_state: Any = None
    view: Viewport = field(init=False)
    image: NDArray[np.uint8] = field(init=False)
    is_cut: bool = field(init=False)
    features: NDArray[Any] = field(init=False)
    logits: NDArray[Any] = field(init=False)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the work of one stage on this frame, and mark it for the profiler."""
        with self.profiler(name), self.frame.stage(name):
            yield
