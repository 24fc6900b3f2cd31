"""The `cuda` device: one video stream's frames on a GPU that several video streams may share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, ClassSpec, ignore_message
from cliprl.pipeline.core.frame import Frame, Profiler
from cliprl.pipeline.core.interfaces import OutputSpec, Sink
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.cuda.context import GpuContext, SharedGpu
from cliprl.pipeline.cuda.geometry import set_color, set_planes, set_view
from cliprl.pipeline.cuda.kernels.kernel_arguments import Prepare
from cliprl.pipeline.cuda.overlay import CudaOverlay
from cliprl.pipeline.cuda.segmenter import CudaSegmenter
from cliprl.pipeline.cuda.upload import FrameUpload
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.overlay.style import Style
from cliprl.pipeline.segment.segmenter import Segmenter

if TYPE_CHECKING:
    from cliprl.pipeline.sources import FrameSource


class CudaDevice(GpuContext):
    """All pixel operations on a GPU, for one video stream: see `cliprl.pipeline.devices.device.Device`."""

    name = "cuda"

    def __init__(self, shared: SharedGpu) -> None:
        super().__init__(shared)
        self.profiler: Profiler = shared.gpu.range

    def source(
        self, name: str, log: Callable[[str], None] = ignore_message, *, stream: int | None = None
    ) -> FrameSource:
        """Open a video file with NVDEC where possible, any other source as `open_source` does."""
        if self.decoder is not None and Path(name).is_file():
            from cliprl.pipeline.cuda.codecs.nvdec import open_on_gpu

            found = open_on_gpu(name, self, self.decoder, log, stream)
            if found is not None:
                return found
        from cliprl.pipeline.sources import open_source

        return open_source(name, stream=stream)

    def sink(self, target: str, spec: OutputSpec, **settings: Any) -> Sink:
        """Open a video file with NVENC where possible, any other output as `open_sink` does."""
        from cliprl.pipeline.sinks import open_sink
        from cliprl.pipeline.sinks.factory import is_video

        if self.encoding is None or not is_video(target, spec):
            return open_sink(target, spec, **settings)
        from cliprl.pipeline.cuda.codecs.nvenc_sink import open_nvenc_sink

        return open_nvenc_sink(Path(target), spec, self, self.encoding, **settings)

    def prepare(self, frame: Frame, view: Viewport, out: NDArray[np.uint8]) -> None:
        """Write the network input of a taken frame, RGB uint8 (H, W, 3), and wait for it: see `CpuDevice.prepare`."""
        gpu, stream = self.gpu, self.frames.stream
        height, width = out.shape[:2]
        upload, image, done = FrameUpload(gpu, (height, width)), gpu.empty(out.shape, np.uint8), gpu.event()
        pinned = upload.pinned()
        set_planes(upload.data, self.frames.enter(frame, stream).planes)
        set_color(upload.data, frame.color)
        set_view(upload.data, view, (height, width))
        upload.set_tables(view)
        upload.send(pinned, stream)
        gpu.launch(Prepare(width, height, upload.address, gpu.address(image)), stream)
        self.frames.leave(frame, stream)
        host = gpu.pinned(out.shape, np.uint8)
        gpu.copy(host, image, stream)
        gpu.record(done, stream)
        gpu.synchronize(done)
        np.copyto(out, host)

    def segmenter(self, bundle: Bundle, **settings: Any) -> Segmenter:
        """Make a segmenter for this device's frames; settings as for `Segmenter`."""
        return CudaSegmenter(bundle, device=self, **settings)

    def overlay(self, classes: Sequence[ClassSpec], style: Style | None = None) -> Overlay:
        """Make an overlay for this device's frames."""
        return CudaOverlay(classes, style, context=self)
