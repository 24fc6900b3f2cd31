"""supervision's `process_video`, with a callback that segments and a mask annotator, as in its guides."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cliprl.bench.harness.timing import BenchJob, Runner, TaskOutcome
from cliprl.bench.peers import peer
from cliprl.bench.peers.baseline_loop import OPACITY, Array
from cliprl.bench.peers.networks import openvino_segmenter
from cliprl.engines import open_bundle


@peer(
    "supervision",
    "process_video with the same network on OpenVINO and a mask annotator; its own video writer (MPEG-4 part 2)",
    ("supervision",),
    "pip install supervision",
    ("supervision", "openvino"),
)
def prepare(job: BenchJob) -> Runner:
    """Run the same network on the same engine; detections are one mask per visible class."""
    library: Any = import_module("supervision")
    bundle = open_bundle(job.bundle)
    segment = openvino_segmenter(bundle, job.steps)
    annotator = library.MaskAnnotator(opacity=OPACITY, color_lookup=library.ColorLookup.CLASS)
    painted = [i for i, spec in enumerate(bundle.manifest.classes) if spec.kind != "background"]

    def detections(labels: Array) -> Any:
        present = [i for i in painted if (labels == i).any()]
        if not present:
            return library.Detections.empty()
        masks = np.stack([labels == i for i in present])
        boxes = library.mask_to_xyxy(masks)
        return library.Detections(xyxy=boxes, mask=masks, class_id=np.array(present))

    def annotate(scene: Array, index: int) -> Array:
        labels = segment(np.ascontiguousarray(scene[..., ::-1]))
        full = cv2.resize(labels, scene.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        annotated: Array = annotator.annotate(scene.copy(), detections(full))
        return annotated

    def run(out: Path, frames: int | None) -> TaskOutcome:
        segment.reset()
        counted = []

        def callback(scene: Array, index: int) -> Array:
            counted.append(index)
            return annotate(scene, index)

        library.process_video(source_path=job.clip, target_path=str(out), callback=callback, max_frames=frames)
        return TaskOutcome(len(counted))

    return run
