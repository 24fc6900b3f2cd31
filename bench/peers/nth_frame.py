"""The way of obs-backgroundremoval: a mask every n-th frame, drawn on the frames in between as well."""

from __future__ import annotations

from pathlib import Path

from cliprl.bench.harness.timing import BenchJob, Runner, TaskOutcome
from cliprl.bench.peers import peer
from cliprl.bench.peers.baseline_loop import Image, LabelMaker, run_loop
from cliprl.bench.peers.networks import LOOP_PACKAGES, openvino_segmenter
from cliprl.engines import open_bundle

# Frames for each mask: at 25 FPS a mask is up to 80 ms older than its frame.
MASK_EVERY = 3


class EveryNthFrame:
    """Calls a segmenter for the first of every `every` frames and repeats its labels for the others."""

    def __init__(self, segment: LabelMaker, every: int) -> None:
        self._segment, self._every = segment, every
        self.reset()

    def reset(self) -> None:
        """Forget the clip."""
        self._segment.reset()
        self._count = 0
        self._labels: Image | None = None

    def __call__(self, image: Image) -> Image:
        """Labels (h, w) for the next RGB image (H, W, 3) of the clip."""
        if self._labels is None or self._count % self._every == 0:
            self._labels = self._segment(image)
        self._count += 1
        return self._labels


@peer(
    f"OpenCV + OpenVINO loop, a mask every {MASK_EVERY} frames",
    f"as obs-backgroundremoval does: the loop above, networks on every {MASK_EVERY}rd frame only; masks of the others are old",
    packages=LOOP_PACKAGES,
)
def prepare(job: BenchJob) -> Runner:
    """Run the plain loop with a mask every few frames."""
    bundle = open_bundle(job.bundle)
    segment = EveryNthFrame(openvino_segmenter(bundle, job.steps), MASK_EVERY)

    def run(out: Path, frames: int | None) -> TaskOutcome:
        return TaskOutcome(run_loop(Path(job.clip), out, bundle, segment, frames))

    return run
