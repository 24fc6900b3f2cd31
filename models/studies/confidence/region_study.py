"""Choose from which probability a cell is instrument, and how small a region of such cells may be.

    python -m cliprl.models.studies.confidence.region_study --bundle FOLDER --set data.root=FOLDER --out runs/regions --write

OUT/region-study.json has the instrument IoU and the false alarms of every rule that is tried on the sets for choosing, and of the
chosen one and of none on those for reporting. `--write` seals the chosen rule into the manifest. Images are scored without
refinement and restoration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.engines import Bundle, CliprlError, RegionSpec, open_bundle, seal_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.label_mapping import map_to_instrument
from cliprl.models.data.protocol import CHOSEN, REPORTED, load_protocol, select_sets
from cliprl.models.data.registry import open_dataset
from cliprl.models.data.sample import IGNORE, Image
from cliprl.models.data.sets.corrupted_dataset import CorruptedDataset
from cliprl.models.evaluation import study_command
from cliprl.models.evaluation.evaluation import iterate_samples
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.pipeline.core.frame import FrameContext
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.overlay.upsample import labels_at_frame
from cliprl.pipeline.segment.decision import InstrumentRegions, segmentation_of

REGION_RESULT = "region-study.json"
TRIED = tuple(
    RegionSpec(threshold, share)
    for threshold in (0.35, 0.4, 0.45, 0.5)
    for share in (0.0, 0.002, 0.004, 0.006, 0.008, 0.012)
)
# Every n-th of the protocol's frames is scored under corruption.
CORRUPTED_EVERY = 2
# Points of IoU by which the mean over the sets may be lower for a smaller region, and by which a single score may fall.
WORTH, MOST_FALL = 0.25, 2.0
# Of a set without instruments, at most this share of the pixels may be called instrument, in percent.
MOST_FALSE = 0.2


class RegionSegmenter(ImageSegmenter):
    """Keeps the result of each rule in `found`."""

    def __init__(self, bundle: Bundle, rules: Sequence[RegionSpec | None]) -> None:
        super().__init__(bundle, steps=0, precision="f32", threads=1)
        self._rules = [InstrumentRegions.of(replace(bundle.manifest, regions=rule)) for rule in rules]
        self.found: list[Segmentation] = []

    def refine(self, context: FrameContext) -> None:
        """Decide by each rule."""
        self.found = [segmentation_of(context.logits[0], context.view, 0, 0.0, rule) for rule in self._rules]
        context.segmentation = self.found[0]


def score_rules(
    bundle: Bundle, data: LabelledDataset, ignored: Sequence[str], every: int, rules: Sequence[RegionSpec | None]
) -> list[dict[str, float]]:
    """Return the instrument IoU (without one: nothing) and the share of false alarms of each rule, in percent."""
    segmenter, table = RegionSegmenter(bundle, rules), map_to_instrument(data.classes, bundle.manifest.classes, ignored)
    counts = np.zeros((len(rules), 4), np.int64)
    for _, sample, _ in iterate_samples(data, range(0, len(data), every), segmenter.reset):
        segmenter.segment(sample.image)
        truth = table.truth[sample.labels]
        for row, found in zip(counts, segmenter.found, strict=True):
            row += pixel_counts((table.predicted == 1)[labels_at_frame(found, *truth.shape)], truth)
    return [rates_of(row) for row in counts.tolist()]


def pixel_counts(called: NDArray[np.bool_], truth: Image) -> list[int]:
    """Return how many known pixels are of both, of either, called an instrument wrongly, and known. `truth`: 1 for instrument."""
    known, there = truth != IGNORE, truth == 1
    called = called & known
    return [int(np.count_nonzero(mask)) for mask in (called & there, called | there, called & ~there, known)]


def rates_of(counts: Sequence[int]) -> dict[str, float]:
    """Return the instrument IoU and the share of false alarms of `pixel_counts`, in percent; no IoU without an instrument."""
    both, either, wrong, known = counts
    rates = {"false": round(100 * wrong / known, 3)}
    return {"iou": round(100 * both / either, 2)} | rates if either > wrong else rates


def choose_rule(found: Mapping[str, Sequence[Mapping[str, float]]], rules: Sequence[RegionSpec]) -> RegionSpec | None:
    """Return the chosen rule, or None if none may be chosen. `found`: scores of each set for no rule, then for each of `rules`.

    No score may fall by more than `MOST_FALL` points, and false alarms of a set without instruments may not exceed
    `MOST_FALSE`. Of these rules, the threshold of the highest mean IoU is taken, and with it the smallest region whose mean
    is at most `WORTH` points lower.
    """
    allowed = {}
    for row, rule in enumerate(rules, 1):
        falls = [one[0]["iou"] - one[row]["iou"] for one in found.values() if "iou" in one[0]]
        false = [one[row]["false"] for one in found.values() if "iou" not in one[0]]
        if falls and max(falls) <= MOST_FALL and max(false, default=0) <= MOST_FALSE:
            allowed[rule] = -fmean(falls)
    if not allowed:
        return None
    best = max(allowed, key=lambda rule: allowed[rule])
    close = [
        rule for rule, mean in allowed.items() if rule.threshold == best.threshold and mean >= allowed[best] - WORTH
    ]
    return min(close, key=lambda rule: rule.share)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def study(
    out: Annotated[Path, typer.Option(help=f"Folder for {REGION_RESULT}.")],
    bundle: study_command.BundleOption = "small",
    set_: study_command.SetOption = None,
    protocol: study_command.ProtocolOption = None,
    every: Annotated[int, typer.Option(min=1, help="Score each n-th of the protocol's frames only.")] = 1,
    write: Annotated[bool, typer.Option("--write", help="Seal the rule into the bundle's manifest.")] = False,
    quiet: study_command.QuietOption = False,
) -> None:
    """Score the rules, and choose one."""
    sets, opened, context = load_protocol(protocol), open_bundle(bundle), study_command.study_context(set_, out)
    size = opened.manifest.height, opened.manifest.width

    def score_sets(use: str, rules: Sequence[RegionSpec | None]) -> dict[str, list[dict[str, float]]]:
        rows = [
            (one, severity)
            for one in select_sets(sets, ())
            if sets.use(one) == use and not one.outside
            for severity in (0, *one.severities)
        ]
        scores = {}
        for done, (one, severity) in enumerate(rows, 1):
            data, step = open_dataset(one.data, "test", context), one.every * every
            if severity:
                data, step = CorruptedDataset(data, severity, size), step * CORRUPTED_EVERY
            name = one.name + (f", severity {severity}" if severity else "")
            scores[name] = score_rules(opened, data, one.ignore, step, rules)
            display.on_progress(use, done, len(rows))
        return scores

    with ProgressDisplay.open(quiet) as display:
        chosen = score_sets(CHOSEN, [None, *TRIED])
        rule = choose_rule(chosen, TRIED)
        reported = score_sets(REPORTED, [None, rule] if rule else [None])
    result = {
        "bundle": opened.manifest.name,
        "hashes": dict(opened.manifest.hashes),
        "every": every,
        "rule": asdict(rule) if rule else None,
        "tried": [None, *map(asdict, TRIED)],
        CHOSEN: chosen,
        REPORTED: reported,
    }
    study_command.write_result(out / REGION_RESULT, result)
    typer.echo(f"rule: {result['rule']}")
    place = 1 + TRIED.index(rule) if rule else 0
    for use, scores, row in ((CHOSEN, chosen, place), (REPORTED, reported, -1)):
        for name, found in scores.items():
            typer.echo(f"{name} ({use}): {found[0]} -> {found[row]}")
    if write and rule is None:
        raise CliprlError("no rule keeps to its limits on the sets for choosing: nothing is sealed")
    if write:
        seal_bundle(opened.path, replace(opened.manifest, regions=rule), opened.embeddings)


if __name__ == "__main__":
    raise SystemExit(run_app(app, "region_study"))
