"""Does the choice of frames pay: a bundle tuned on all frames, on chosen ones, and on random ones of the same number.

    python -m cliprl.models.studies.selection_study --set data.root=FOLDER --out models/results/selection.json

Frames of EndoVis 2015 D1 and OP1 are learned, D2 and OP3 are scored. The arms of a seed have the same steps and views.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cliprl.engines import Bundle, CliprlError, open_bundle
from cliprl.engines.bundle.bundle import file_hash
from cliprl.engines.bundle.manifest import MANIFEST
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.config.load import load_tune_config
from cliprl.models.config.tune_config import TuneConfig
from cliprl.models.data.image_mask_dataset import LabelledDataset, SelectedFrames
from cliprl.models.data.label_mapping import with_partial_labels
from cliprl.models.data.registry import DatasetContext, open_dataset
from cliprl.models.evaluation.frame_scores import score_frames
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.study_command import write_result
from cliprl.models.labelling.frame_selection import FrameMeasure, choose_frames
from cliprl.models.labelling.measure import MeasuringSegmenter
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.models.tuning.remake import copy_with_encoder
from cliprl.models.tuning.trainable_encoder import TrainableEncoder
from cliprl.models.tuning.tune import OldViews, encode_old_views, resolve_precision, train_encoder
from cliprl.models.tuning.tuning_data import TuningData, open_old_data

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_TRAINED, SCORED = ("D1", "OP1"), ("D2", "OP3")
ARM_ALL, ARM_CHOSEN, ARM_RANDOM = "all frames", "chosen", "random"
ARMS = ARM_ALL, ARM_CHOSEN, ARM_RANDOM
# Share of the frames that is chosen, and the least share of the score of all frames that it must reach.
PART, TARGET = 0.25, 0.99
# Seconds between two images of an `ImageSegmenter`.
_FRAME_SECONDS = 1 / 25
Scores = Mapping[str, float]


class MeasuringImageSegmenter(MeasuringSegmenter, ImageSegmenter):
    """An image segmenter that keeps a `FrameMeasure` of each image."""


def measure_dataset(bundle: Bundle, data: LabelledDataset) -> list[FrameMeasure]:
    """Return the measures of all frames; `index` is that of the data set, and each clip is a video."""
    segmenter = MeasuringImageSegmenter(bundle, precision="f32")
    found: list[FrameMeasure] = []
    clip = None
    for index in range(len(data)):
        if data.clip(index) != clip:
            clip = data.clip(index)
            segmenter.start(str(clip))
        segmenter.segment(data[index].image)
        found.append(replace(segmenter.measures[-1], index=index))
    return found


def choose_indices(measures: Sequence[FrameMeasure], count: int) -> list[int]:
    """Return the indices that `cliprl-label select` would choose, with its spacing."""
    seconds = len(measures) * _FRAME_SECONDS
    return sorted(one.measure.index for one in choose_frames(measures, count, min(1.0, seconds / (4 * count))))


def arms_of_seed(measures: Sequence[FrameMeasure], seed: int) -> dict[str, list[int]]:
    """Return the indices that each arm learns."""
    count = round(PART * len(measures))
    random = np.random.default_rng(seed).choice(len(measures), count, replace=False)
    return {
        ARM_ALL: list(range(len(measures))),
        ARM_CHOSEN: choose_indices(measures, count),
        ARM_RANDOM: sorted(int(index) for index in random),
    }


def summarize_seeds(seeds: Mapping[str, Mapping[str, Scores]]) -> dict[str, Any]:
    """Return mean scores of each arm, the ratio of each to all frames by data set, and whether the target is met.

    Seeds without all arms are left out; nothing is returned if there is no other.
    """
    seeds = {seed: found for seed, found in seeds.items() if len(found) == len(ARMS)}
    if not seeds:
        return {}
    means = {
        arm: {name: float(np.mean([found[arm][name] for found in seeds.values()])) for name in SCORED} for arm in ARMS
    }
    ratios = {
        arm: {name: means[arm][name] / means[ARM_ALL][name] for name in SCORED} for arm in (ARM_CHOSEN, ARM_RANDOM)
    }
    return {"mean": means, "share of all frames": ratios, "met": min(ratios[ARM_CHOSEN].values()) >= TARGET}


def score_arms(
    bundle: Bundle,
    data: LabelledDataset,
    arms: Mapping[str, list[int]],
    config: TuneConfig,
    score: Callable[[Bundle], Scores],
) -> Iterator[tuple[str, Scores]]:
    """Tune the bundle on each arm's frames, beside the same views of old data. Yields each arm with its scores."""
    old, _ = open_old_data(bundle.manifest.classes, config.data, lambda done, total: None)
    views: OldViews | None = None
    for arm, indices in arms.items():
        frames = SelectedFrames([(data, index) for index in indices])
        tuned = TuningData(frames, frames, old, ())
        with (
            ProgressDisplay.open(prefix=f"seed {config.seed}, {arm}: ") as display,
            tempfile.TemporaryDirectory() as made,
        ):
            if views is None:
                encoder = TrainableEncoder(bundle, config.batch, config.blocks)
                views = encode_old_views(encoder, bundle, tuned, config, display)
            encoder = train_encoder(bundle, tuned, config, display, views)
            scores = score(copy_with_encoder(bundle, encoder, bundle.manifest, Path(made)))
        yield arm, scores


def score_sequences(bundle: Bundle, root: Path, every: int) -> Scores:
    """Return the instrument IoU of the refined masks; of videos each `every`-th frame is scored."""
    found = {}
    for name in SCORED:
        data = open_dataset(f"endovis2015:endovis2015?sequences={name}", context=DatasetContext(root, "data.root"))
        refined = score_frames(bundle, data, (), every if name.startswith("D") else 1).refined.sum(axis=0)
        found[name] = float(refined[0] / refined[1])
    return found


@app.command()
def study(
    out: Annotated[Path, typer.Option(help="The result file; it grows by a row at a time, and is resumed.")],
    bundle: Annotated[str, typer.Option(help="The engine bundle to tune.")] = "small",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="data.root=FOLDER, or a setting of `cliprl-train tune`.")
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="May be repeated.", show_default="0, 1, 2")] = None,
    every: Annotated[int, typer.Option(min=1, help="Score each N-th frame of videos.")] = 5,
) -> None:
    """Tune on all frames of D1 and OP1, on a chosen quarter and on a random quarter; score D2 and OP3."""
    config = load_tune_config(set_ or ())
    config = replace(config, precision=resolve_precision(config.precision))
    opened, root = open_bundle(bundle), Path(config.data.root)
    line = f"endovis2015:endovis2015?sequences={','.join(_TRAINED)}"
    data = with_partial_labels(open_dataset(line, context=DatasetContext(root, "data.root")), opened.manifest.classes)
    heading = {
        "command": _command(set_ or ()),
        "bundle": opened.manifest.name,
        "bundle_sha256": file_hash(opened.path / MANIFEST),
        "chosen_sets": ["D2"],  # settings were chosen on it
        "every": every,
        "settings": {key: value for key, value in asdict(config).items() if key not in ("data", "seed")},
    }
    known = _read(out, heading)
    done: dict[str, dict[str, Scores]] = known.get("seeds", {})
    before = known.get("before") or score_sequences(opened, root, every)
    measures: list[FrameMeasure] = []
    for seed in seeds or (0, 1, 2):
        row = done.setdefault(str(seed), {})
        if len(row) < len(ARMS):
            measures = measures or measure_dataset(opened, data)
            arms = {arm: indices for arm, indices in arms_of_seed(measures, seed).items() if arm not in row}
            seeded = replace(config, seed=seed)
            for arm, scores in score_arms(opened, data, arms, seeded, lambda made: score_sequences(made, root, every)):
                row[arm] = scores
                result = heading | {"before": before, "seeds": done} | summarize_seeds(done)
                write_result(out, result)
    typer.echo(json.dumps({"before": before, **summarize_seeds(done)}, indent=1))


def _command(settings: Sequence[str]) -> str:
    """Return the command with its settings, without the places of data."""
    given = ["data.root=FOLDER", *(text for text in settings if not text.startswith("data."))]
    return "python -m cliprl.models.studies.selection_study" + "".join(f" --set {text}" for text in given)


def _read(out: Path, heading: Mapping[str, Any]) -> dict[str, Any]:
    """Return an earlier result, or nothing. Raises CliprlError for one of another bundle or other settings."""
    try:
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
    except ValueError as error:
        raise CliprlError(f"'{out}' is no result of this study ({error}): delete it or give another --out") from error
    for key in ("bundle_sha256", "every", "settings") if found else ():
        if found.get(key) != heading[key]:
            raise CliprlError(f"'{out}' was made with another '{key}': delete it or give another --out")
    return found


if __name__ == "__main__":
    raise SystemExit(run_app(app, "python -m cliprl.models.studies.selection_study"))
