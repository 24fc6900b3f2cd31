"""Codecs of the CPU in the place of a GPU's, in the process of a hardware codec, with faults that a test plants by a file."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from mmap import mmap
from pathlib import Path
from typing import Any

import av
from gpu_fake import FakeGpu
from live_gpu import BrightOnGpu

from cliprl.engines import CliprlError
from cliprl.pipeline.cuda.codecs.host_frame_decoder import DecoderSetup, HostFrameDecoder
from cliprl.pipeline.cuda.codecs.live_decoder import LiveDecoder
from cliprl.pipeline.cuda.codecs.live_encoder import HostFrameEncoder, NvencProcess
from cliprl.pipeline.sinks.video.live_encoding import LiveCodecs

# Seconds that an output may wait for a process on a busy machine.
PATIENCE = 60.0


def x264_options(crf: float, preset: str) -> dict[str, str]:
    return {"preset": preset, "crf": f"{crf:g}", "bf": "0", "tune": "zerolatency"}


def plant(fault: Path) -> None:
    """Do what the file says, once."""
    if fault.exists():
        words = fault.read_text()
        fault.unlink()
        if words == "die":
            os._exit(3)
        if words == "hang":
            time.sleep(3600)
        if words == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if words == "raise":
            raise CliprlError("planted: the card fell off the bus")


class FaultyEncoder(HostFrameEncoder):
    """x264 with faults."""

    def __init__(self, fault: Path, memory: mmap) -> None:
        plant(fault.with_suffix(".start"))
        super().__init__("libx264", memory)
        self._fault = fault

    def __call__(self, message: Any, memory: mmap) -> Any:
        if isinstance(message, tuple):
            plant(self._fault)
        return super().__call__(message, memory)


def hardware_encoding(fault: Path, seconds: float = PATIENCE) -> NvencProcess:
    return NvencProcess(partial(FaultyEncoder, fault), x264_options, patience=PATIENCE, seconds=seconds)


def open_software(codec: str) -> Any:
    return av.CodecContext.create(codec, "r")


@dataclass(frozen=True)
class MakeDecoder:
    """Makes the work of the process: libav's decoder of the CPU, with faults."""

    fault: Path

    def __call__(self, setup: DecoderSetup, memory: mmap) -> FaultyDecoder:
        return FaultyDecoder(setup, memory, self.fault)


class FaultyDecoder(HostFrameDecoder):
    """A decoder of the CPU with faults."""

    def __init__(self, setup: DecoderSetup, memory: mmap, fault: Path) -> None:
        plant(fault.with_suffix(".start"))
        super().__init__(setup, memory, open_software)
        self._fault = fault

    def __call__(self, message: Any, memory: mmap) -> Any:
        plant(self._fault)
        return super().__call__(message, memory)


class BrightDevice:
    """A device of the simulated GPU for `cliprl-stream`: segments what is bright, with the codecs above."""

    def segmenter(self, bundle: Any, **settings: Any) -> BrightOnGpu:
        return BrightOnGpu(FakeGpu(lambda n: 0))


def check_device() -> None:
    """There is always one."""


def open_device(log: Any = None) -> BrightDevice:
    return BrightDevice()


def hardware_codecs() -> LiveCodecs:
    fault = Path(os.environ["CODEC_FAULT"])
    make = MakeDecoder(fault.with_name("decoder"))
    return LiveCodecs(lambda seconds: hardware_encoding(fault), partial(LiveDecoder, make=make, seconds=PATIENCE))
