"""What else people would use, each as its own documentation has it done, on the same clip in the same rounds."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from cliprl.bench.harness.timing import BenchJob, Runner, TimedRun, quiet_libraries, timed_runs
from cliprl.bench.peers import cliprl_contender
from cliprl.engines import UsageError


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the work. `prepare` names a function "module:name" from a job to a runner, loaded only when it is run.

    `needs` are the modules that must be installed, `install` how to. `differs` says what its work is not, or more than, ours.
    """

    prepare: str
    differs: str
    needs: tuple[str, ...] = ()
    install: str = ""

    def missing(self) -> str | None:
        """Why it can't run here, None where it can."""
        absent = [name for name in self.needs if find_spec(name) is None]
        return f"{', '.join(absent)} not installed: {self.install}" if absent else None

    def load(self) -> Callable[[BenchJob], Runner]:
        """Its `prepare`."""
        module, name = self.prepare.split(":")
        prepare: Callable[[BenchJob], Runner] = getattr(import_module(module), name)
        return prepare


TRIAL_FRAMES = 2
_SAME = "same bundle, input size and x264 preset; every refinement step taken; full-size RGB in between, no contours or legend"
_RANDOM = "random weights in the same network, float32; input size, preset and drawing as in the other loops"
_TORCH = (("torch", "open_clip", "timm"), "pip install 'cliprl[train]'")
CONTENDERS: Mapping[str, Contender] = {
    cliprl_contender.NAME: Contender("cliprl.bench.peers.cliprl_contender:prepare", "its defaults"),
    "OpenCV + OpenVINO loop": Contender("cliprl.bench.peers.networks:openvino_loop", f"same engine, {_SAME}"),
    "OpenCV + OpenVINO loop, 1 thread": Contender(
        "cliprl.bench.peers.networks:openvino_loop_alone", "as the loop above, its networks on one thread"
    ),
    "OpenCV + ONNX Runtime loop": Contender(
        "cliprl.bench.peers.networks:onnxruntime_loop", _SAME, ("onnxruntime",), "pip install onnxruntime"
    ),
    "OpenCV + ONNX Runtime loop, 1 thread": Contender(
        "cliprl.bench.peers.networks:onnxruntime_loop_alone",
        "as the loop above, its network on one thread",
        ("onnxruntime",),
        "pip install onnxruntime",
    ),
    "OpenCV + torch loop": Contender("cliprl.bench.peers.networks:torch_loop", _RANDOM, *_TORCH),
    "OpenCV + torch loop, 1 thread": Contender(
        "cliprl.bench.peers.networks:torch_loop_alone", "as the loop above, its network on one thread", *_TORCH
    ),
    "supervision": Contender(
        "cliprl.bench.peers.supervision:prepare",
        "process_video with the same network on OpenVINO and a mask annotator; its own video writer (MPEG-4 part 2)",
        ("supervision",),
        "pip install supervision",
    ),
    "ultralytics yolo11n-seg, OpenVINO": Contender(
        "cliprl.bench.peers.ultralytics:openvino",
        "its own nano network at 384x640, random weights (so that few instances are drawn), its own drawing and video writer",
        ("ultralytics",),
        "pip install ultralytics",
    ),
    "ultralytics yolo11n-seg, torch": Contender(
        "cliprl.bench.peers.ultralytics:torch",
        "its own nano network at 640, random weights (so that few instances are drawn), its own drawing and video writer",
        ("ultralytics",),
        "pip install ultralytics",
    ),
    "SAM 2 video predictor": Contender(
        "cliprl.bench.peers.sam2:prepare",
        "hiera-tiny with random weights at 1024x1024, one prompted object, masks only: no drawing, no output file",
        ("sam2",),
        "pip install sam2",
    ),
    "torchcodec decode": Contender(
        "cliprl.bench.peers.upper_bounds:torchcodec_decode",
        "decodes to RGB tensors, nothing else",
        ("torchcodec",),
        "pip install torchcodec",
    ),
    "PyAV decode": Contender("cliprl.bench.peers.upper_bounds:decode", "decodes, nothing else: a limit, not a peer"),
    "PyAV decode and encode": Contender(
        "cliprl.bench.peers.upper_bounds:transcode",
        "decodes and encodes with the same x264 preset, pictures untouched: a limit, not a peer",
    ),
}


def contender(name: str) -> Contender:
    """Look a contender up. Raises UsageError for an unknown name."""
    if name not in CONTENDERS:
        raise UsageError(f"unknown peer '{name}': one of {', '.join(CONTENDERS)}")
    return CONTENDERS[name]


def trial(name: str, job: BenchJob) -> str | None:
    """Run a contender over a few frames in this process; returns why that failed, in a line, None where it went well."""
    quiet_libraries()
    try:
        with tempfile.TemporaryDirectory() as folder:
            contender(name).load()(job)(Path(folder) / "out.mp4", TRIAL_FRAMES)
    except Exception as error:
        # All lines, for the first is often only a heading: torchcodec's cause, no FFmpeg, stands in the second.
        return f"fails here with {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def timed(name: str, job: BenchJob) -> list[TimedRun]:
    """One round of a contender, in this process."""
    quiet_libraries()
    return timed_runs(contender(name).load()(job), job)
