"""Choose from which share of the instruments' probability a part is named, on the protocol's sets with labels of parts.

    python -m cliprl.models.studies.confidence.part_study --bundle FOLDER --set data.root=FOLDER --out runs/parts --write

OUT/part-study.json has the scores of every share, on the sets for choosing and on those for reporting. `--write` seals the
chosen share into the manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.engines import Bundle, CliprlError, open_bundle, seal_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.dataset_spec import DatasetSpec
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.label_mapping import map_by_name
from cliprl.models.data.protocol import CHOSEN, load_protocol, select_sets
from cliprl.models.data.registry import open_dataset
from cliprl.models.data.sample import instrument_classes
from cliprl.models.evaluation import study_command
from cliprl.models.evaluation.evaluation import iterate_samples
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.pipeline.overlay.upsample import labels_at_frame
from cliprl.pipeline.segment.decision import merge_unsure

PART_RESULT = "part-study.json"
# The kinds of data set with labels of parts, and which of their classes a class of the bundle is.
PART_NAMES: Mapping[str, Mapping[str, str]] = {
    "endovis2015": {"instrument-shaft": "shaft", "instrument-clasper": "head", "instrument-wrist": "head"},
    "rendered": {},
}
# The shares that are tried; 0: a part is named everywhere.
TRIED_SHARES = (0.0, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
# Of the pixels that are named as a part, this share is to be right on every set for choosing.
LEAST_RIGHT = 0.9

PixelCounts = NDArray[np.int64]


def count_parts(bundle: Bundle, data: LabelledDataset, kind: str, every: int, progress: Any) -> PixelCounts:
    """Count the pixels of each `every`-th frame: int64 (N, 4), a row for each of the `TRIED_SHARES`.

    Of the pixels that are instrument in mask and truth: their number, those named as a part, those with the right part. Then the
    pixels that are instrument in either.
    """
    segmenter, classes = ImageSegmenter(bundle, precision="f32", threads=1), bundle.manifest.classes
    table = map_by_name(data.classes, classes, PART_NAMES[kind], ())
    parts: list[int] = np.flatnonzero(instrument_classes(classes)).tolist()
    is_instrument, is_called = np.zeros((2, 256), bool)
    is_instrument[: len(data.classes)] = instrument_classes(data.classes)
    is_called[[*parts, len(classes)]] = True
    counts = np.zeros((len(TRIED_SHARES), 4), np.int64)
    indices = range(0, len(data), every)
    for done, (_, sample, _) in enumerate(iterate_samples(data, indices, segmenter.reset), 1):
        found, there = segmenter.segment(sample.image), is_instrument[sample.labels]
        for row, share in zip(counts, TRIED_SHARES, strict=True):
            labels = labels_at_frame(merge_unsure(found, parts, share), *there.shape)
            called = is_called[labels]
            named = called & there & (labels < len(classes))
            right = named & (table.predicted[labels] == table.truth[sample.labels])
            row += [np.count_nonzero(mask) for mask in (called & there, named, right, called | there)]
        progress(done, len(indices))
    return counts


def share_scores(counts: PixelCounts) -> dict[str, dict[str, float | None]]:
    """Return the scores of each share as JSON values.

    Of the pixels named as a part the share with the right one; of those that are rightly called instrument the share that is
    not named; and the IoU of instrument.
    """
    return {
        f"{share:g}": {
            "named_right": round(right / named, 4) if named else None,
            "not_named": round(1 - named / both, 4) if both else None,
            "instrument_iou": round(both / either, 4) if either else None,
        }
        for share, (both, named, right, either) in zip(TRIED_SHARES, counts.tolist(), strict=True)
    }


def choose_share(found: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Return the smallest of the shares at which the parts named are right often enough on each set for choosing, or None."""
    chosen = [entry["shares"] for entry in found.values() if entry["use"] == CHOSEN]
    fit = [
        share
        for share in TRIED_SHARES
        if share and all((one[f"{share:g}"]["named_right"] or 0) >= LEAST_RIGHT for one in chosen)
    ]
    return min(fit, default=None) if chosen else None


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def study(
    out: Annotated[Path, typer.Option(help=f"Folder for {PART_RESULT}.")],
    bundle: study_command.BundleOption = "small",
    set_: study_command.SetOption = None,
    protocol: study_command.ProtocolOption = None,
    every: Annotated[int, typer.Option(min=1, help="Score each n-th of the protocol's frames only.")] = 1,
    write: Annotated[bool, typer.Option("--write", help="Seal the share into the bundle's manifest.")] = False,
    quiet: study_command.QuietOption = False,
) -> None:
    """Score the shares, and choose one."""
    rules, opened = load_protocol(protocol), open_bundle(bundle)
    context, found = study_command.study_context(set_, out), dict[str, dict[str, Any]]()
    with ProgressDisplay.open(quiet) as display:
        for one in select_sets(rules, ()):
            kind, use = DatasetSpec.parse(one.data).kind, rules.use(one)
            if kind not in PART_NAMES:
                continue
            data = open_dataset(one.data, "test", context)
            step = one.every * every
            counts = count_parts(
                opened, data, kind, step, lambda done, total, name=one.name: display.on_progress(name, done, total)
            )
            found[one.name] = {"use": use, "frames": -(-len(data) // step), "shares": share_scores(counts)}
    share = choose_share(found)
    result = {
        "bundle": opened.manifest.name,
        "hashes": dict(opened.manifest.hashes),
        "every": every,
        "least_right": LEAST_RIGHT,
        "part_share": share,
        "sets": found,
    }
    study_command.write_result(out / PART_RESULT, result)
    typer.echo(_table(result))
    if write and share is None:
        raise CliprlError(f"no share makes {LEAST_RIGHT:.0%} of the parts named right: nothing is sealed")
    if write:
        seal_bundle(opened.path, replace(opened.manifest, part_share=share), opened.embeddings)


def _table(result: Mapping[str, Any]) -> str:
    lines = [f"part_share: {result['part_share']}"]
    for name, entry in result["sets"].items():
        for share in dict.fromkeys(("0", f"{result['part_share'] or 0:g}")):
            scores = entry["shares"][share]
            lines.append(f"{name} ({entry['use']}), {share}: {scores}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(run_app(app, "part_study"))
