"""Tune a bundle on labeled frames: hold out, train, compare, and write the bundle only if it is not worse."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from cliprl.engines import Bundle, CliprlError, Manifest, open_bundle, seal_bundle
from cliprl.engines.bundle.bundle import ENCODER
from cliprl.engines.bundle.schema import check_manifest
from cliprl.models.config.tune_config import TuneConfig
from cliprl.models.config.value_types import Precision, TuningPrecision
from cliprl.models.data.dataset_spec import DatasetSpec
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.registry import dataset_kind, lines_of_path, portable_lines
from cliprl.models.export.placement import BundlePlace, bundle_place
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.models.training.checkpoint import NotFiniteError
from cliprl.models.training.parallel import cpu_has_bf16
from cliprl.models.tuning.blend import blend_weights
from cliprl.models.tuning.comparison import ScoreChange, compare_scores, score_parts
from cliprl.models.tuning.label_fit import measure_label_fit
from cliprl.models.tuning.remake import add_derived, copy_with_encoder
from cliprl.models.tuning.stage import TuningStage
from cliprl.models.tuning.trainable_encoder import TrainableEncoder
from cliprl.models.tuning.tuning_data import TuningData, hold_out, open_tuning_data
from cliprl.models.tuning.views import EncodedViews, ViewSettings, encode_views

# Images of each set that calibrate an int8 encoder.
CALIBRATION_IMAGES = 24
# Old data of fewer frames is trained as a whole.
_FEWEST_JUDGED = 10


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What to tune: the bundle, its labels (paths or data set lines), and the folder of the new bundle."""

    bundle: str
    labels: Sequence[str]
    out: Path


def tune(options: TuneOptions, config: TuneConfig, display: ProgressDisplay, console: Console) -> Bundle:
    """Tune a bundle, print the scores before and after, and write the new bundle to `options.out`.

    Raises CliprlError, with the figures, if masks are wrong in one way or a score falls too far; then nothing is written.
    Raises UsageError for bad options, and the errors of the data sets.
    """
    # "." and ".." do not name a bundle.
    options = replace(options, out=options.out.resolve())
    bundle = open_bundle(options.bundle)
    check_manifest(replace(bundle.manifest, name=options.out.name).to_json())
    config = replace(config, precision=resolve_precision(config.precision))
    size = sum(file.stat().st_size for file in bundle.path.iterdir() if file.name in bundle.manifest.hashes)
    with bundle_place(options.out, size) as place:
        for note in place.notes:
            _print(console, note)
        _tune(bundle, options, config, display, console, place)
    return open_bundle(options.out)


def _tune(
    bundle: Bundle,
    options: TuneOptions,
    config: TuneConfig,
    display: ProgressDisplay,
    console: Console,
    place: BundlePlace,
) -> None:
    data = open_tuning_data(options.labels, bundle.manifest.classes, config.data, display.on_scene)
    for note in data.notes:
        _print(console, note)
    _check_labels(bundle, data, config.misfit)
    before = score_parts(bundle, data.parts, lambda done, total: display.on_progress("scores before", done, total))
    encoder = train_encoder(bundle, data, config, display)
    manifest = replace(
        bundle.manifest,
        name=options.out.name,
        training=_provenance(bundle, options, config, before, encoder.blend),
        scores={},
    )
    tuned = copy_with_encoder(bundle, encoder, manifest, place.path)
    after = score_parts(tuned, data.parts, lambda done, total: display.on_progress("scores after", done, total))
    changes = compare_scores(before, after, data.parts)
    console.print(change_table(changes, encoder.blend))
    _refuse_worse(changes)
    tuned = seal_bundle(tuned.path, replace(tuned.manifest, scores=after), tuned.embeddings)
    images = data.images(CALIBRATION_IMAGES, (manifest.height, manifest.width))
    add_derived(tuned, bundle, images, options.out, partial(_print, console))
    place.publish()


def _print(console: Console, line: str) -> None:
    """Print a line as it is, whose commands can be copied from a terminal of any width."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class OldViews:
    """Encoded views of old data: those to learn, and whole frames of each data set that judge the blend and are not learned."""

    learned: Sequence[EncodedViews]
    judged: Sequence[EncodedViews]


def encode_old_views(
    encoder: TrainableEncoder, bundle: Bundle, data: TuningData, config: TuneConfig, display: ProgressDisplay
) -> OldViews:
    """Encode as many views of old data as of new data, and blocks of frames of each old data set that judge the blend.

    The latter are not augmented, since scores are those of whole frames.
    """
    shares = sum(share for _, share in data.old)
    learned, judged = list[EncodedViews](), list[EncodedViews]()
    for number, (dataset, share) in enumerate(data.old, 2):
        if count := round(config.views * share / shares):
            kept, rest = hold_out(dataset) if len(dataset) >= _FEWEST_JUDGED else (dataset, None)
            learned.append(_encoded(encoder, bundle, kept, count, config, display, f"views {number}"))
            if rest is not None and (few := min(count // 4, len(rest))):
                title = f"frames to judge {number}"
                judged.append(_encoded(encoder, bundle, rest, few, config, display, title, whole=True))
    return OldViews(learned, judged)


def _encoded(
    encoder: TrainableEncoder,
    bundle: Bundle,
    dataset: LabelledDataset,
    count: int,
    config: TuneConfig,
    display: ProgressDisplay,
    title: str,
    *,
    whole: bool = False,
) -> EncodedViews:
    size = (bundle.manifest.height, bundle.manifest.width)
    settings = ViewSettings(count, size, config.seed, config.variety, config.precision, whole)
    return encode_views(encoder, dataset, settings, lambda done, total: display.on_progress(title, done, total))


def train_encoder(
    bundle: Bundle, data: TuningData, config: TuneConfig, display: ProgressDisplay, old: OldViews | None = None
) -> TrainableEncoder:
    """Encode the views, train the last layers of the bundle's encoder on them, and blend the weights with those before.

    `old`: the views of old data if they are encoded already, with the same settings.
    """
    torch.manual_seed(config.seed)
    encoder = TrainableEncoder(bundle, config.batch, config.blocks)
    start = [weight.detach().clone() for weight in encoder.weights]
    new = _encoded(encoder, bundle, data.new, config.views, config, display, "views 1")
    old = old or encode_old_views(encoder, bundle, data, config, display)
    classes = bundle.manifest.classes
    stage = TuningStage(encoder, EncodedViews.join([new, *old.learned]), len(new), classes, config)
    for index in range(config.steps):
        try:
            losses = stage.step(index)
        except NotFiniteError as error:
            raise CliprlError(
                f"step {index}: {error}; no bundle is written: lower the rate with --set rate=1e-5"
            ) from error
        display.on_step(stage, index + 1, losses)
    if old.judged:
        encoder.blend = blend_weights(encoder, start, old.judged, classes, config.precision)
    return encoder


def change_table(changes: Sequence[ScoreChange], blend: float) -> Table:
    """Return the table of scores before and after, in shares, and their changes in points."""
    title = f"{blend:.0%} of the training is kept, the rest is the old bundle"
    table = Table("score", "frames", "before", "after", "points", "may lose", title=title)
    for row in changes:
        cells = (f"{row.before:.3f}", f"{row.after:.3f}", f"{row.gain:+.1f}", f"{row.allowed:.0f}")
        table.add_row(row.title, str(row.frames), *cells, style="red" if row.refused else None)
    return table


def _refuse_worse(changes: Sequence[ScoreChange]) -> None:
    worse = [
        f"{row.title}: {row.before:.3f} to {row.after:.3f} ({row.gain:+.1f} points, at most {row.allowed:.0f} may be lost)"
        for row in changes
        if row.refused
    ]
    if worse:
        raise CliprlError(f"the tuned bundle is worse and is not written: {'; '.join(worse)}: check the labels")
    if not changes:
        raise CliprlError("no score could be computed, so the bundle is not written: label frames with instruments")


def _check_labels(bundle: Bundle, data: TuningData, points: float) -> None:
    fit = measure_label_fit(bundle, data.all_new)
    fault = fit.fault(points) if fit else None
    if fit and fault:
        raise CliprlError(
            f"the masks seem to be {fault}, so the bundle is not tuned: their IoU with the bundle's own masks is {fit.iou:.3f}, "
            f"and {fit.undone[fault]:.3f} if that is undone: check that masks and frames belong together, or set misfit=100"
        )


def resolve_precision(name: TuningPrecision) -> Precision:
    """Return the training precision that `name` means on this machine."""
    if name != "auto":
        return name
    return "bf16" if cpu_has_bf16() else "f32"


def _provenance(
    bundle: Bundle, options: TuneOptions, config: TuneConfig, before: Mapping[str, Any], blend: float
) -> Mapping[str, Any]:
    """Return the manifest's record of the tuning, without any path of this machine, and with that of the old bundle."""
    manifest = bundle.manifest
    lines = [line for text in options.labels for line in lines_of_path(text)]
    settings = asdict(config)
    settings["data"] |= {
        "root": "",
        "cache": "",
        "sets": portable_lines(config.data.sets),
    }
    kinds = dict.fromkeys(DatasetSpec.parse(line).kind for line in (*lines, *config.data.sets))
    unknown = "see the set's own terms"
    sources = [dataset_kind(f"{kind}:").source or {"name": kind, "licence": unknown} for kind in kinds]
    old = list(manifest.training.get("data", []))
    return {
        "command": f"cliprl-train tune {manifest.name} LABELS",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "data": [*old, *(source for source in sources if source not in old)],
        "start": f"bundle {manifest.name}, SHA-256 of its encoder {manifest.hashes[ENCODER]}",
        "labels": portable_lines(lines),
        "recipe": settings,
        "blend": blend,
        "scores_before": before,
        "tuned_from": _tuned_from(manifest),
    }


def _tuned_from(manifest: Manifest) -> Mapping[str, Any]:
    return {"name": manifest.name, "training": dict(manifest.training)}
