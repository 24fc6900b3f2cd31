"""EdgeTAM's video model in transformers, frame by frame as in its guide to streaming; random weights, for speed only."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.bench.harness.timing import BenchJob, Runner, TaskOutcome
from cliprl.bench.peers import peer
from cliprl.bench.peers.baseline_loop import Image, run_loop
from cliprl.engines import Bundle, open_bundle

# The input of the published model.
MODEL_SIZE = 1024
# Frames of a run: on a CPU each takes about a second.
TRACKED_FRAMES = 8


class EdgeTamTracker:
    """Tracks one object from a point in the middle of the first frame: RGB images (H, W, 3) to labels (h, w)."""

    def __init__(self, bundle: Bundle) -> None:
        library: Any = import_module("transformers")
        self._torch: Any = import_module("torch")
        self._model = library.EdgeTamVideoModel(library.EdgeTamVideoConfig()).eval()
        images = library.Sam2ImageProcessor(size={"height": MODEL_SIZE, "width": MODEL_SIZE})
        self._processor = library.Sam2VideoProcessor(images, library.Sam2VideoVideoProcessor())
        # The class that is drawn where the object is, as the other loops draw theirs.
        self._label = next(i for i, spec in enumerate(bundle.manifest.classes) if spec.kind != "background")
        self.reset()

    def reset(self) -> None:
        """Forget the object."""
        self._session: Any = None

    def __call__(self, image: Image) -> Image:
        """Segment the next frame of the clip."""
        height, width = image.shape[:2]
        inputs = self._processor(images=image, device="cpu", return_tensors="pt")
        if self._session is None:
            self._session = self._processor.init_video_session(inference_device="cpu")
            self._processor.add_inputs_to_inference_session(
                inference_session=self._session,
                frame_idx=0,
                obj_ids=1,
                input_points=[[[[width / 2, height / 2]]]],
                input_labels=[[[1]]],
                original_size=inputs.original_sizes[0],
            )
        with self._torch.inference_mode():
            masks = self._model(inference_session=self._session, frame=inputs.pixel_values[0]).pred_masks
        return np.asarray(masks[0, 0].numpy() > 0, np.uint8) * np.uint8(self._label)


@peer(
    "EdgeTAM video, transformers",
    "random weights at 1024x1024 on PyTorch, one object from a point, streamed; drawing and x264 preset as in the loops",
    ("transformers", "torch", "timm"),
    "pip install transformers timm torch torchvision",
    ("transformers", "torch", "timm"),
)
def prepare(job: BenchJob) -> Runner:
    """Build the model from its configuration, and run it in the plain loop."""
    bundle = open_bundle(job.bundle)
    tracker = EdgeTamTracker(bundle)

    def run(out: Path, frames: int | None) -> TaskOutcome:
        return TaskOutcome(
            run_loop(Path(job.clip), out, bundle, tracker, min(frames or TRACKED_FRAMES, TRACKED_FRAMES))
        )

    return run
