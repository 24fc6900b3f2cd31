"""ultralytics' segmentation predict with a video saved, as in its documentation: its own networks, drawing and writer."""

from __future__ import annotations

import tempfile
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from cliprl.bench.harness.timing import BenchJob, Runner, TaskOutcome
from cliprl.bench.peers import peer

# Built from their definitions, without a download: speed does not depend on trained weights.
YOLO11, YOLO26 = "yolo11n-seg", "yolo26n-seg"
# The default size for a 16:9 video with a fixed-shape export: multiples of 32.
EXPORT_SIZE = (384, 640)
_OWN = "random weights (so that few instances are drawn), its own drawing and video writer"
_NEEDS = (("ultralytics",), "pip install ultralytics")
_OPENVINO = (*_NEEDS, ("ultralytics", "openvino"))
_EXPORTED = f"its own nano network at 384x640, float32 export with its defaults, {_OWN}"


@peer(f"ultralytics {YOLO11}, torch", f"its own nano network at 640, {_OWN}", *_NEEDS, ("ultralytics", "torch"))
def run_torch(job: BenchJob) -> Runner:
    """Predict with PyTorch at the library's default size."""
    return _runner(job, import_module("ultralytics").YOLO(f"{YOLO11}.yaml"), 640)


@peer(f"ultralytics {YOLO11}, OpenVINO", _EXPORTED, *_OPENVINO)
def run_openvino(job: BenchJob) -> Runner:
    """Export to OpenVINO at 384x640, then predict with that."""
    return _exported(job, YOLO11, "openvino")


@peer(f"ultralytics {YOLO26}, OpenVINO", _EXPORTED, *_OPENVINO)
def run_newest_openvino(job: BenchJob) -> Runner:
    """Do the same with the newest nano network."""
    return _exported(job, YOLO26, "openvino")


@peer(f"ultralytics {YOLO26}, ONNX Runtime", _EXPORTED, *_NEEDS, ("ultralytics", "onnxruntime"))
def run_newest_onnxruntime(job: BenchJob) -> Runner:
    """Export the newest nano network to ONNX at 384x640, then predict with that."""
    return _exported(job, YOLO26, "onnx")


def _exported(job: BenchJob, network: str, format_: str) -> Runner:
    library: Any = import_module("ultralytics")
    folder = tempfile.mkdtemp(prefix="cliprl-bench-")
    library.YOLO(f"{network}.yaml").save(f"{folder}/network.pt")
    exported = library.YOLO(f"{folder}/network.pt").export(format=format_, imgsz=EXPORT_SIZE, verbose=False)
    return _runner(job, library.YOLO(exported, task="segment"), EXPORT_SIZE)


def _runner(job: BenchJob, network: Any, size: int | tuple[int, int]) -> Runner:
    def run(out: Path, frames: int | None) -> TaskOutcome:
        results = network.predict(
            job.clip,
            stream=True,
            save=True,
            imgsz=size,
            device="cpu",
            verbose=False,
            project=str(out.parent),
            name="ultralytics",
            exist_ok=True,
        )
        return TaskOutcome(sum(1 for _ in islice(results, frames)))

    return run
