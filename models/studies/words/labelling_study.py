"""Score the masks that a prompt gives on a data set with known masks, step by step.

    python -m cliprl.models.studies.words.labelling_study --data 'endovis2015:endovis2015' --set data.root=FOLDER --out FILE

No known mask is used for the masks. "saliency" is the prompt's mask by the bundle's dense saliency, "network" that of the
promptable network for its boxes and peaks, "sure" the labels as they are trained on: unsure pixels are left out there.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.engines import open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.promptable import open_promptable
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.protocol import shipped_protocol
from cliprl.models.data.registry import open_dataset
from cliprl.models.data.sample import IGNORE
from cliprl.models.evaluation.evaluation import iterate_samples
from cliprl.models.evaluation.study_command import BundleOption, SetOption, study_context, write_result
from cliprl.models.labelling.pseudo_labels.labeller import PromptLabeller

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def score_labels(
    data: Annotated[list[str], typer.Option(metavar="KIND:FOLDER", help="A data set; may be repeated.")],
    out: Annotated[Path, typer.Option(help="The result file.")],
    prompt: Annotated[
        str, typer.Option(help="The prompt; its mask is compared with all instruments.")
    ] = "surgical instrument",
    bundle: BundleOption = "small",
    network: Annotated[str, typer.Option(help="The promptable network.")] = "grabcut",
    every: Annotated[int, typer.Option(min=1, help="Score each n-th frame.")] = 1,
    set_: SetOption = None,
) -> None:
    """Score the labels of a prompt by their IoU with the instruments."""
    opened, context = open_bundle(bundle), study_context(set_, out.parent)
    labeller = PromptLabeller(opened, [prompt], open_promptable(network), threads=1)
    result: dict[str, Any] = {
        "prompt": prompt,
        "bundle": dict(opened.manifest.hashes),
        "network": network,
        "sets": {line: score_set(labeller, open_dataset(line, "test", context), every, line) for line in data},
    }
    write_result(out, result)
    typer.echo(json.dumps(result["sets"], indent=1))


def score_set(labeller: PromptLabeller, data: LabelledDataset, every: int, line: str) -> dict[str, Any]:
    """Return the pooled IoU and Dice of each step, the share of unsure pixels, and the seconds for a frame."""
    ids = [i for i, spec in enumerate(data.classes) if spec.kind == "instrument"]
    counts = {step: np.zeros(3) for step in ("saliency", "network", "sure")}
    unsure, seconds = [], []
    for _, sample, _ in iterate_samples(data, range(0, len(data), every), labeller.reset):
        start = time.monotonic()
        found = labeller(sample.image)
        seconds.append(time.monotonic() - start)
        truth, known = np.isin(sample.labels, ids), sample.labels != IGNORE
        masks = next(iter(found.masks.values()))
        counts["saliency"] += _counts(masks["saliency"], truth, known)
        counts["network"] += _counts(masks.get("network", masks["saliency"]), truth, known)
        counts["sure"] += _counts(found.labels == 1, truth, known & (found.labels != IGNORE))
        unsure.append(float((found.labels == IGNORE).mean()))
    scores = {
        step: {"iou": round(both / max(either, 1), 4), "dice": round(2 * both / max(total, 1), 4)}
        for step, (both, either, total) in counts.items()
    }
    return {
        "use": shipped_protocol().use_of(line),
        "frames": len(seconds),
        **scores,
        "unsure": round(float(np.mean(unsure)), 4),
        "median_seconds": round(float(np.median(seconds)), 4),
    }


def _counts(mask: NDArray[np.bool_], truth: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the pixels of the intersection, of the union, and of both masks together."""
    mask, truth = mask & known, truth & known
    return np.array([(mask & truth).sum(), (mask | truth).sum(), mask.sum() + truth.sum()], np.float64)


if __name__ == "__main__":
    raise SystemExit(run_app(app, "labelling_study"))
