"""Choose below which size a region of instruments is segmented again, in an enlarged part of the frame.

    python -m cliprl.models.studies.confidence.zoom_study --bundle FOLDER --set data.root=FOLDER --out runs/zoom --write

Run it after the study of regions. The sets for choosing hold few small instruments; so it also scores windows of their images in
which instruments cover `WINDOW_SHARES` of the pixels, as where one has just entered. OUT/zoom-study.json has the instrument IoU,
the false alarms and the frames looked at again for every size that is tried on the sets for choosing, and for the chosen one and
for none on those for reporting. `--write` seals the chosen size into the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Annotated

import numpy as np
import typer

from cliprl.engines import Bundle, CliprlError, UsageError, open_bundle, seal_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.label_mapping import map_to_instrument
from cliprl.models.data.protocol import CHOSEN, REPORTED, load_protocol, select_sets
from cliprl.models.data.registry import open_dataset
from cliprl.models.data.sample import IGNORE, Image
from cliprl.models.evaluation import study_command
from cliprl.models.evaluation.evaluation import iterate_samples
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.studies.confidence.region_study import MOST_FALSE, pixel_counts, rates_of
from cliprl.models.studies.refiner_gate import MOST_LOSS
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.pipeline.core.frame import FrameContext
from cliprl.pipeline.overlay.upsample import labels_at_frame

ZOOM_RESULT = "zoom-study.json"
# Shares of the grid below which a region is looked at; 0: none is.
SIZES = (0.0, 0.008, 0.012, 0.016, 0.02, 0.03)
# Windows of an image, at most, the sides that they may have as shares of the image's, and the share of their known pixels that
# are instrument.
WINDOWS, WINDOW_SIDES, WINDOW_SHARES = 4, (0.55, 0.9), (0.003, 0.015)
_DRAWS = 60


class CountingSegmenter(ImageSegmenter):
    """Counts the frames that are looked at again, in `looks`."""

    looks = 0

    def encode(self, context: FrameContext) -> None:
        """Encode the frame, and count it if a region of it was enlarged."""
        super().encode(context)
        self.looks += context.zoomed is not None


def small_windows(image: Image, truth: Image, seed: int) -> Iterator[tuple[Image, Image]]:
    """Yield windows of an image uint8 (H, W, 3) and of its labels (H, W), 1 for instrument, with little of an instrument."""
    rng, found = np.random.default_rng(seed), 0
    for _ in range(_DRAWS):
        height, width = (int(side * rng.uniform(*WINDOW_SIDES)) for side in truth.shape)
        top, left = rng.integers(truth.shape[0] - height + 1), rng.integers(truth.shape[1] - width + 1)
        part = np.s_[top : top + height, left : left + width]
        known = truth[part][truth[part] != IGNORE]
        share = float((known == 1).mean()) if known.size else 0.0
        if WINDOW_SHARES[0] <= share <= WINDOW_SHARES[1]:
            yield np.ascontiguousarray(image[part]), np.ascontiguousarray(truth[part])
            found += 1
            if found == WINDOWS:
                return


def score_sizes(
    bundle: Bundle, data: LabelledDataset, ignored: Sequence[str], every: int, sizes: Sequence[float], windows: bool
) -> list[dict[str, float]]:
    """Score each size on a data set, or on the windows of its images with few pixels of instruments; nothing without one."""
    regions = bundle.manifest.regions
    assert regions is not None
    segmenters = [
        CountingSegmenter(
            replace(bundle, manifest=replace(bundle.manifest, regions=replace(regions, zoomed=size))),
            precision="f32",
            threads=1,
        )
        for size in sizes
    ]
    table = map_to_instrument(data.classes, bundle.manifest.classes, ignored)
    counts, frames = np.zeros((len(sizes), 4), np.int64), 0

    def reset() -> None:
        for segmenter in segmenters:
            segmenter.reset()

    for index, sample, _ in iterate_samples(data, range(0, len(data), every), reset):
        truth = table.truth[sample.labels]
        for image, labels in small_windows(sample.image, truth, index) if windows else [(sample.image, truth)]:
            frames += 1
            if windows:
                reset()
            for row, segmenter in zip(counts, segmenters, strict=True):
                found = segmenter.segment(image)
                row += pixel_counts((table.predicted == 1)[labels_at_frame(found, *labels.shape)], labels)
    looks = [round(segmenter.looks / frames, 3) for segmenter in segmenters] if frames else []
    return [
        rates_of(row) | {"looks": share, "frames": frames} for row, share in zip(counts.tolist(), looks, strict=False)
    ]


def choose_size(found: Mapping[str, Sequence[Mapping[str, float]]], sizes: Sequence[float]) -> float:
    """Return the size with the highest mean IoU of those that cost no set over `MOST_LOSS`; 0 if all do.

    `found`: scores of each set for each size, the first of which is 0. A size with which a set without instruments has more
    false alarms than `MOST_FALSE` percent, and more than with none, is not taken.
    """
    allowed = {0.0: 0.0}
    for place, size in enumerate(sizes):
        gains = [one[place]["iou"] - one[0]["iou"] for one in found.values() if "iou" in one[0]]
        false = [one[place]["false"] for one in found.values() if "iou" not in one[0] and one[place] != one[0]]
        if gains and min(gains) >= -MOST_LOSS and max(false, default=0.0) <= MOST_FALSE:
            allowed[size] = fmean(gains)
    return max(allowed, key=lambda size: allowed[size])


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def study(
    out: Annotated[Path, typer.Option(help=f"Folder for {ZOOM_RESULT}.")],
    bundle: study_command.BundleOption = "small",
    set_: study_command.SetOption = None,
    protocol: study_command.ProtocolOption = None,
    every: Annotated[int, typer.Option(min=1, help="Score each n-th of the protocol's frames only.")] = 1,
    write: Annotated[bool, typer.Option("--write", help="Seal the size into the bundle's manifest.")] = False,
    quiet: study_command.QuietOption = False,
) -> None:
    """Score the sizes, and choose one."""
    sets, opened, context = load_protocol(protocol), open_bundle(bundle), study_command.study_context(set_, out)
    regions = opened.manifest.regions
    if regions is None:
        raise UsageError(
            f"bundle '{opened.manifest.name}' has no rule for regions: choose it with region_study --write first"
        )

    def score_sets(use: str, sizes: Sequence[float]) -> dict[str, list[dict[str, float]]]:
        rows = [one for one in select_sets(sets, ()) if sets.use(one) == use and not one.outside]
        scores = dict[str, list[dict[str, float]]]()
        for done, one in enumerate(rows, 1):
            data = open_dataset(one.data, "test", context)
            for windows, name in ((False, one.name), (True, f"{one.name}, windows")):
                found = score_sizes(opened, data, one.ignore, one.every * every, sizes, windows)
                scores |= {name: found} if found else {}
            display.on_progress(use, done, len(rows))
        return scores

    with ProgressDisplay.open(quiet) as display:
        chosen = score_sets(CHOSEN, SIZES)
        size = choose_size(chosen, SIZES)
        reported = score_sets(REPORTED, [0.0, size] if size else [0.0])
    result = {
        "bundle": opened.manifest.name,
        "hashes": dict(opened.manifest.hashes),
        "every": every,
        "zoomed": size,
        "tried": list(SIZES),
        CHOSEN: chosen,
        REPORTED: reported,
    }
    study_command.write_result(out / ZOOM_RESULT, result)
    typer.echo(f"zoomed: {size}")
    for use, scores, place in ((CHOSEN, chosen, SIZES.index(size)), (REPORTED, reported, -1)):
        for name, rates in scores.items():
            typer.echo(f"{name} ({use}): {rates[0]} -> {rates[place]}")
    if write and not size:
        raise CliprlError("every size costs a set for choosing too much: nothing is sealed")
    if write:
        manifest = replace(opened.manifest, regions=replace(regions, zoomed=size))
        seal_bundle(opened.path, manifest, opened.embeddings)


if __name__ == "__main__":
    raise SystemExit(run_app(app, "zoom_study"))
