"""A check of the codecs for live streams: whether NVENC and NVDEC open in their processes, and how fast they are."""

from __future__ import annotations

import io
import time
from fractions import Fraction
from functools import partial
from typing import Any

import av
import numpy as np

from cliprl.engines import CliprlError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.cuda.codecs.codec_process import CodecProcess
from cliprl.pipeline.cuda.codecs.host_frame_decoder import DecoderSetup, HostFrameDecoder, SentPacket
from cliprl.pipeline.cuda.codecs.live_encoder import NvencProcess
from cliprl.pipeline.sinks.video.live_encoding import LiveEncoding, live_encoder

_PATIENCE, _FRAMES = 30.0, 50
_RATE = Fraction(25)


def check_live_codecs(height: int, width: int) -> str:
    """Encode and decode some frames of this size. Return what did it, and the milliseconds a frame, or why the CPU would."""
    images = [_image(index, height, width) for index in range(_FRAMES)]
    info = StreamInfo("check", height, width, 1 / _RATE, _RATE, live=True)
    encoding = LiveEncoding(NvencProcess(patience=_PATIENCE))
    with av.open(io.BytesIO(), "w", format="nut") as container:
        encoder = encoding.open(container, images[0], info, crf=23, preset="ultrafast", key_seconds=1)
        start = time.monotonic()
        for image in images:
            encoder.encode(image)
        spent = (time.monotonic() - start) / _FRAMES * 1000
    encoding.close()
    return f"{encoding.notes[0]}, {spent:.1f} ms a frame; {_decoder(images, info)}"


def _decoder(images: list[Frame], info: StreamInfo) -> str:
    with av.open(io.BytesIO(), "w", format="nut") as container:
        encoder = live_encoder(container, images[0], info, 23, "ultrafast", 1)
        encoder.repeat_headers()
        packets: list[Any] = [packet for image in images for packet in encoder.encode(image)]
    setup, key = DecoderSetup("h264", b"", 0, packets[0].size), bytes(packets[0])
    process = CodecProcess(partial(HostFrameDecoder, setup), "the process of NVDEC", CliprlError, key)
    try:
        if not process.is_ready(_PATIENCE):
            return f"NVDEC was not ready after {_PATIENCE:g} s"
        start = time.monotonic()
        for p in packets:
            process.memory[: p.size] = bytes(p)
            process.call(SentPacket(p.size, p.pts, p.dts, p.duration or 0, p.time_base), _PATIENCE)
        return f"decoded on the GPU by NVDEC, {(time.monotonic() - start) / len(packets) * 1000:.1f} ms a frame"
    except CliprlError as error:
        return f"decoded on the CPU: no NVDEC ({error})"
    finally:
        process.close()


def _image(index: int, height: int, width: int) -> Frame:
    luma = np.full((height, width), 40 + index, np.uint8)
    chroma = np.full((height // 2, width // 2, 2), 128, np.uint8)
    return Frame(luma, chroma, index, 1 / _RATE, index)
