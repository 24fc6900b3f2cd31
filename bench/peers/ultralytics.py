"""ultralytics' segmentation predict with a video saved, as in its documentation: its own network, drawing and writer."""

from __future__ import annotations

import tempfile
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from cliprl.bench.harness.timing import BenchJob, Runner, TaskOutcome
from cliprl.bench.peers import peer

# Built from its definition, without a download: speed does not depend on trained weights.
NETWORK = "yolo11n-seg.yaml"
_OWN = "random weights (so that few instances are drawn), its own drawing and video writer"
_NEEDS = (("ultralytics",), "pip install ultralytics")


@peer("ultralytics yolo11n-seg, torch", f"its own nano network at 640, {_OWN}", *_NEEDS)
def run_torch(job: BenchJob) -> Runner:
    """Predict with PyTorch at the library's default size."""
    return _runner(job, import_module("ultralytics").YOLO(NETWORK), 640)


@peer("ultralytics yolo11n-seg, OpenVINO", f"its own nano network at 384x640, {_OWN}", *_NEEDS)
def run_openvino(job: BenchJob) -> Runner:
    """Export to OpenVINO at 384x640, then predict with that."""
    library: Any = import_module("ultralytics")
    folder = tempfile.mkdtemp(prefix="cliprl-bench-")
    network = library.YOLO(NETWORK)
    network.save(f"{folder}/network.pt")
    exported = library.YOLO(f"{folder}/network.pt").export(format="openvino", imgsz=(384, 640), verbose=False)
    return _runner(job, library.YOLO(exported, task="segment"), (384, 640))


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
