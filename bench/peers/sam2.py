"""SAM 2's video predictor with one point on the first frame, as in its notebook; random weights, for speed only."""

from __future__ import annotations

import tempfile
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import av

from cliprl.bench.harness.timing import BenchJob, Runner, TaskOutcome
from cliprl.bench.peers import peer

CONFIG = "configs/sam2.1/sam2.1_hiera_t.yaml"
# The predictor holds every frame of a video in memory at 1024x1024, and a CPU needs seconds for each.
MOST_FRAMES = 4


@peer(
    "SAM 2 video predictor",
    "hiera-tiny with random weights at 1024x1024, one prompted object, masks only: no drawing, no output file",
    ("sam2",),
    "pip install sam2",
    ("sam2", "torch"),
)
def prepare(job: BenchJob) -> Runner:
    """Build the predictor; write the clip's first frames into the JPEG folder that it reads."""
    torch: Any = import_module("torch")
    predictor: Any = import_module("sam2.build_sam").build_sam2_video_predictor(CONFIG, None, device="cpu")
    folder = Path(tempfile.mkdtemp(prefix="cliprl-bench-"))
    with av.open(job.clip) as container:
        for i, frame in enumerate(islice(container.decode(video=0), MOST_FRAMES)):
            image: Any = frame
            image.to_image().save(folder / f"{i:05d}.jpg", quality=95)

    def run(out: Path, frames: int | None) -> TaskOutcome:
        with torch.inference_mode():
            state = predictor.init_state(str(folder))
            height, width = state["video_height"], state["video_width"]
            predictor.add_new_points_or_box(state, 0, 1, points=[[width / 2, height / 2]], labels=[1])
            seen = sum(1 for _ in islice(predictor.propagate_in_video(state), frames))
        return TaskOutcome(seen)

    return run
