"""The last rung: where no kernel can be compiled or launched, torch's own operators do what the kernels do, slower."""

from __future__ import annotations

import torch

# Both are imported for the stand-ins that they enter in the list, too.
from cliprl.pipeline.cuda import torch_masks, torch_pictures  # noqa: F401
from cliprl.pipeline.cuda.kernels.kernel_arguments import Arguments
from cliprl.pipeline.cuda.torch_memory import STANDS, Memory


class TorchLauncher:
    """See `cliprl.pipeline.cuda.kernels.launchers.Launcher`. On the GPU number `index`."""

    name = "torch's own operators"

    def __init__(self, index: int) -> None:
        self._memory = Memory(torch.device("cuda", index))
        self._streams: dict[int, torch.cuda.Stream] = {}

    def stream(self) -> int:
        """See `Launcher`. Of torch's pool, which has 32: beyond that two may be the same, which only costs time."""
        stream = torch.cuda.Stream(self._memory.device)  # type: ignore[no-untyped-call]
        self._streams[stream.cuda_stream] = stream
        return int(stream.cuda_stream)

    def launch(self, arguments: Arguments, stream: int) -> None:
        """See `Launcher`."""
        with torch.cuda.stream(self._streams[stream]):
            stand_in(arguments, self._memory)


@torch.no_grad()
def stand_in(arguments: Arguments, memory: Memory) -> None:
    """Do what a kernel does, on the current stream."""
    STANDS[arguments.name](arguments, memory)
