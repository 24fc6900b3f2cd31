"""Open a video file for NVENC, after trials that show whether it works here."""

from __future__ import annotations

from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av

from cliprl.engines import CliprlError, available_cpus
from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.engines.errors import line_of
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec, StreamInfo
from cliprl.pipeline.cuda.codecs import nvenc
from cliprl.pipeline.cuda.codecs.codec_process import CodecProcess, WorkFactory
from cliprl.pipeline.cuda.codecs.live_encoder import HostFrameEncoder
from cliprl.pipeline.cuda.context import Encoding, GpuContext
from cliprl.pipeline.cuda.gpu_api import Gpu
from cliprl.pipeline.sinks.video.encoder import PRESETS
from cliprl.pipeline.sinks.video.live_encoding import HardwareEncoderError
from cliprl.pipeline.sinks.video.parallel_encoder import automatic_encoders
from cliprl.pipeline.sinks.video.video_file import VideoSink

# Seconds that the process of the first trial may take, with the start of its interpreter.
TRIAL_SECONDS = 30.0


class NvencSink(VideoSink):
    """A video file that NVENC encodes, from GPU memory. The encoder ends with the file, while nothing is captured."""

    needs_planes = False

    def _finish(self, whole: bool) -> None:
        super()._finish(whole)
        self._end_encoder()

    def _abandon(self) -> None:
        super()._abandon()
        self._end_encoder()

    def _end_encoder(self) -> None:
        with CAPTURE_LOCK:
            self._encoder = None


def open_nvenc_sink(
    target: Path, spec: OutputSpec, device: GpuContext, encoding: Encoding, *, encoders: int = 0, **settings: Any
) -> VideoSink:
    """Open a video file for NVENC, or for libx264 where GPU, driver or frame size do not allow it; a note gives the reason.

    encoders: how many of libx264 encode at once; 0 is as many as suit this stream's share of the processors.
    """
    preset = settings.get("preset", PRESETS[0])
    reason = why_not(device.gpu, encoding, spec.stream, nvenc.options(settings.get("crf", 23), preset))
    if not reason:

        def make(stream: Any, first: Frame, info: StreamInfo, **chosen: Any) -> nvenc.NvencEncoder:
            reopen = partial(sink.open_stream, "libx264", first.time_base)
            return nvenc.NvencEncoder(stream, first, info, device=device, encoding=encoding, reopen=reopen, **chosen)

        sink: VideoSink = NvencSink(target, spec, encoder=make, codec=encoding.codec, **settings)
        return sink
    encoders = encoders or automatic_encoders(preset, max(available_cpus() // len(device.contexts), 1))
    sink = VideoSink(target, spec, encoders=encoders, **settings)
    how = f" by {encoders} encoders at once" if encoders > 1 else ""
    sink.notes.append(f"painted frames are downloaded and encoded on the CPU{how}: no NVENC for this video ({reason})")
    return sink


def why_not(gpu: Gpu, encoding: Encoding, info: StreamInfo, chosen: dict[str, str] | None = None) -> str:
    """Return the reason why frames of this stream can't be encoded on the GPU with options, "" where they can; encode one."""
    reason = nvenc.why_not_size(info.height, info.width, interlaced=info.interlaced)
    if not reason and encoding.pix_fmt == "cuda":
        reason = why_not_in_process(partial(HostFrameEncoder, encoding.codec))
    if reason:
        return reason
    with CAPTURE_LOCK:
        return _try_encoding(gpu, encoding, info.width, info.height, chosen or {})


def why_not_in_process(make: WorkFactory, seconds: float = TRIAL_SECONDS) -> str:
    """Return the reason why NVENC does not open in a separate process within `seconds`, "" where it does.

    PyAV holds the interpreter's lock while libav opens an encoder: one that never returns would stop this whole process.
    """
    try:
        process = CodecProcess(make, "the process of NVENC", HardwareEncoderError)
        try:
            return "" if process.is_ready(seconds) else f"it did not open within {seconds:g} s"
        finally:
            process.close()
    except (CliprlError, OSError) as error:
        return line_of(error)


def _try_encoding(gpu: Gpu, encoding: Encoding, width: int, height: int, chosen: dict[str, str]) -> str:
    try:
        context: Any = av.CodecContext.create(encoding.codec, "w")
        context.width, context.height, context.pix_fmt = width, height, encoding.pix_fmt
        context.time_base, context.framerate, context.options = Fraction(1, 25), Fraction(25), chosen
        image = nvenc.Surface.of(gpu, height, width).image(gpu, nvenc.libav_context(gpu, encoding))
        image.pts = 0
        packets = [*context.encode(image), *context.encode(None)]
    except (av.error.FFmpegError, OSError, ValueError, RuntimeError, NotImplementedError) as error:
        return nvenc.short_reason(error)
    return "" if packets else "it gives no packet"
