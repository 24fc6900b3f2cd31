"""Measure corrections by a simulated annotator: `python -m cliprl.models.promptable.measure --data LINE -o FILE`.

On the frames of a corrupted clip where the network is worst, the annotator clicks the center of the largest error until the
mask's IoU with the truth is high enough. Then the frames that follow are segmented with and without the correction.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.engines import Bundle, UsageError, open_bundle
from cliprl.engines.bundle.bundle import file_hash
from cliprl.engines.bundle.manifest import MANIFEST
from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.cli.console import error_console
from cliprl.models.data.label_mapping import map_to_instrument
from cliprl.models.data.registry import DatasetContext, open_dataset, portable_lines
from cliprl.models.data.sample import instrument_classes
from cliprl.models.data.sets.corrupted_dataset import CorruptedDataset
from cliprl.models.evaluation.study_command import write_result
from cliprl.models.promptable.annotator import mask_iou, next_click
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.correction.class_odds import class_odds, with_class_odds
from cliprl.pipeline.correction.corrector import Corrector, Draft, open_mask_network
from cliprl.pipeline.correction.prompts import MaskPrompt
from cliprl.pipeline.segment.decision import segmentation_of
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sinks.json_text import json_text
from cliprl.pipeline.sinks.labels.frame_labels import frame_labels
from cliprl.pipeline.sinks.labels.indexed_png import encode_png
from cliprl.pipeline.sources.images.array_frame import frame_of_image

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
# Clicks after which the annotator gives up, and the least share of the image that an object covers.
MOST_CLICKS, _LEAST_SHARE = 20, 0.01


@dataclass(slots=True)
class CorrectedFrame:
    """One corrected frame: the IoU at first and after each click, and milliseconds of each answer, on the clock and of CPU."""

    index: int
    ious: list[float]
    wall: list[float]
    cpu: list[float]

    def clicks_to(self, target: float) -> int:
        """Return the clicks until the IoU reached `target`; one more than the most if it never did."""
        return next((n for n, value in enumerate(self.ious) if value >= target), MOST_CLICKS + 1)


class CorrectedClip:
    """The frames of a data set with the truth of all instruments as one, and a corrector."""

    def __init__(self, data: Any, bundle: Bundle, corrector: Corrector) -> None:
        self.data, self.corrector = data, corrector
        self._truth = map_to_instrument(data.classes, bundle.manifest.classes, ()).truth
        self.instruments = np.flatnonzero(instrument_classes(bundle.manifest.classes))
        self.palette = [spec.color for spec in bundle.manifest.classes]

    def __len__(self) -> int:
        return len(self.data)

    def frame(self, index: int) -> tuple[Frame, NDArray[np.uint8]]:
        """Return a frame, and its truth uint8 (H, W): 1, 0 or IGNORE."""
        sample = self.data[index]
        return frame_of_image(sample.image, index), self._truth[sample.labels]

    def mask(self, draft: Draft) -> NDArray[np.bool_]:
        """Return the mask of all instruments, bool (H, W)."""
        odds, frame = class_odds(draft.logits, self.instruments), draft.frame
        left, top, width, height = draft.view.crop
        x0, y0, across, down = draft.view.placed
        large = cv2.resize(odds, (draft.view.network_width, draft.view.network_height), interpolation=cv2.INTER_LINEAR)
        placed = large[y0 : y0 + down, x0 : x0 + across]
        found = np.zeros((frame.height, frame.width), bool)
        found[top : top + height, left : left + width] = cv2.resize(placed, (width, height)) > 0
        return found

    def worst(self, count: int, following: int) -> list[tuple[float, int]]:
        """Return the IoU and index of the `count` worst frames; each shows an instrument and has `following` frames after it."""
        found = []
        for index in range(len(self) - following):
            frame, truth = self.frame(index)
            if (truth == 1).mean() >= _LEAST_SHARE and self.data.clip(index) == self.data.clip(index + following):
                found.append((mask_iou(self.mask(self.corrector.start(frame)), truth), index))
        return sorted(found)[:count]

    def correct(self, index: int, target: float) -> tuple[CorrectedFrame, Draft]:
        """Let the annotator correct a frame."""
        frame, truth = self.frame(index)
        draft = self.corrector.start(frame)
        done = CorrectedFrame(index, [mask_iou(self.mask(draft), truth)], [], [])
        prompts: list[MaskPrompt] = []
        while done.ious[-1] < target and len(prompts) < MOST_CLICKS:
            click = next_click(self.mask(draft), truth)
            if click is None:
                break
            prompts.append(MaskPrompt(0, (click.x, click.y), click.positive))
            draft.prompts = prompts
            clock, cpu = time.perf_counter(), time.process_time()
            odds = self.corrector.network.correct(draft, prompts, class_odds(draft.logits, self.instruments))
            draft.logits = with_class_odds(draft.logits, self.instruments, odds)
            encode_png(frame_labels(frame, segmentation_of(draft.logits, draft.view, 0, 0.0)), self.palette)
            done.wall.append(1000 * (time.perf_counter() - clock))
            done.cpu.append(1000 * (time.process_time() - cpu))
            done.ious.append(mask_iou(self.mask(draft), truth))
        return done, draft

    def follow(self, index: int, draft: Draft, count: int) -> list[float]:
        """Return the IoU of the `count` frames after `index`, which follow `draft`."""
        found = []
        self.corrector.segmenter.reset()
        self.corrector.segmenter(draft.frame)
        for number in range(index + 1, index + 1 + count):
            frame, truth = self.frame(number)
            draft = self.corrector.follow(draft, frame)
            found.append(mask_iou(self.mask(draft), truth))
        return found


def click_summary(frames: Sequence[CorrectedFrame], target: float) -> dict[str, Any]:
    """Return the statistics of the corrected frames."""
    clicks = [one.clicks_to(target) for one in frames]
    wall, cpu = ([ms for one in frames for ms in getattr(one, name)] for name in ("wall", "cpu"))
    return {
        "frames": len(frames),
        "target_iou": target,
        "iou_before": round(float(np.mean([one.ious[0] for one in frames])), 4),
        "iou_after_1_click": round(float(np.mean([one.ious[min(1, len(one.ious) - 1)] for one in frames])), 4),
        "iou_after_3_clicks": round(float(np.mean([one.ious[min(3, len(one.ious) - 1)] for one in frames])), 4),
        "clicks_median": float(np.median(clicks)),
        "clicks_mean": round(float(np.mean(clicks)), 2),
        "share_within_3_clicks": round(float(np.mean(np.array(clicks) <= 3)), 4),
        "share_within_5_clicks": round(float(np.mean(np.array(clicks) <= 5)), 4),
        "never_reached": sum(n > MOST_CLICKS for n in clicks),
        "answer_ms_p50": round(float(np.median(wall)), 2),
        "answer_ms_p95": round(float(np.percentile(wall, 95)), 2),
        "answer_cpu_ms_p95": round(float(np.percentile(cpu, 95)), 2),
    }


@app.command()
def measure_corrections(
    data: Annotated[str, typer.Option(help="A clip with labels: KIND:FOLDER?OPTION=VALUE.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The result file, JSON.")],
    bundle: Annotated[str, typer.Option(metavar="NAME|FOLDER", help="The bundle.")] = "small",
    network: Annotated[str, typer.Option(help="The promptable network; the bundle's head if left out.")] = "",
    root: Annotated[Path, typer.Option(help="Folder that holds the folders of the data sets.")] = Path(),
    severity: Annotated[float, typer.Option(min=0, max=5, help="Of the corruptions.")] = 4.0,
    worst: Annotated[int, typer.Option(min=1, help="Frames to correct.")] = 60,
    target: Annotated[float, typer.Option(min=0, max=1, help="IoU at which the annotator is content.")] = 0.9,
    following: Annotated[int, typer.Option(min=0, help="Frames that follow each correction.")] = 25,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Count the clicks of a simulated annotator on the worst frames of a clip, and what the frames after them gain."""
    console, opened = error_console(quiet=quiet), open_bundle(bundle)
    manifest = opened.manifest
    found, source = open_dataset(data, "test", DatasetContext(root, "--root")), portable_lines([data])[0]
    clean = CorruptedDataset(found, severity, (manifest.height, manifest.width))
    corrector = Corrector(Segmenter(opened, threads=1), open_mask_network(opened, network))
    clip = CorrectedClip(clean, opened, corrector)
    chosen = clip.worst(worst, following)
    if not chosen:
        raise UsageError(f"data set '{data}' has no frame with an instrument and {following} frames after it")
    frames, plain, corrected = [], [], []
    for number, (_, index) in enumerate(chosen):
        done, draft = clip.correct(index, target)
        frames.append(done)
        if following:
            plain.append(clip.follow(index, corrector.start(clip.frame(index)[0]), following))
            corrected.append(clip.follow(index, draft, following))
        if (number + 1) % 10 == 0:
            console.print(f"{number + 1} of {len(chosen)} frames: {click_summary(frames, target)}")
    result = {
        "command": f"python -m cliprl.models.promptable.measure --data '{source}' --severity {severity:g} --worst {worst}",
        "bundle": manifest.name,
        "bundle_sha256": file_hash(opened.path / MANIFEST),
        "network": corrector.network.name,
        "summary": click_summary(frames, target),
        "following": _following(plain, corrected),
        "clicks": {str(one.index): [round(value, 4) for value in one.ious] for one in frames},
    }
    write_result(out, json_text(result, indent=1))
    console.print(result["summary"], result["following"])


def _following(plain: list[list[float]], corrected: list[list[float]]) -> dict[str, Any]:
    """Return the mean IoU of the frames after a correction, with and without it, and the gain in points by distance."""
    if not plain:
        return {}
    without, with_it = np.array(plain), np.array(corrected)
    gain = 100 * (with_it - without)
    return {
        "frames_each": without.shape[1],
        "iou_without": round(float(without.mean()), 4),
        "iou_with": round(float(with_it.mean()), 4),
        "gain_points": round(float(gain.mean()), 2),
        "gain_points_by_distance": [round(float(value), 2) for value in gain.mean(axis=0)],
    }


if __name__ == "__main__":
    raise SystemExit(run_app(app, "python -m cliprl.models.promptable.measure"))
