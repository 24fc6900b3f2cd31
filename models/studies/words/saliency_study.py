"""Compare the dense saliency map of a right word with those of words for things that no frame shows.

    python -m cliprl.models.studies.words.saliency_study --set data.root=FOLDER --out models/results/saliency.json

By set: the rank correlation of the map of PROMPT with that of each of UNKNOWN_WORDS, and the AUROC of the maps for instruments.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.engines import open_bundle
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.protocol import load_protocol, select_sets
from cliprl.models.data.registry import open_dataset
from cliprl.models.data.sample import IGNORE, evenly_spaced, instrument_classes
from cliprl.models.evaluation.scoring.ranking import auroc
from cliprl.models.evaluation.study_command import BundleOption, SetOption, study_context, write_result
from cliprl.models.labelling.saliency import SaliencyModel, SaliencySettings, open_saliency_model, saliency
from cliprl.models.studies.words.presence_study import PROMPT
from cliprl.models.studies.words.word_scores import UNKNOWN_WORDS

SALIENCY_SETS = ("EndoVis 2015 D1", "EndoVis 2015 OP3", "EndoVis 2015 D2", "EndoVis 2015 OP1")
DENSE_MAPS = SaliencySettings(method="dense")
# Maps are compared at this size.
MAP_SIZE = 80, 64
# Frames are left out where instruments, or all else, cover no more than this share.
LEAST_TRUTH = 0.01
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def compare_words(
    out: Annotated[Path, typer.Option(help="The result file.")],
    bundle: BundleOption = "small",
    set_: SetOption = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each set, evenly spaced.")] = 12,
) -> None:
    """Score the maps on sets of the protocol."""
    rules, model, context = load_protocol(), open_saliency_model(bundle, threads=1), study_context(set_, out.parent)
    result: dict[str, Any] = {
        "bundle": dict(open_bundle(bundle).manifest.hashes),
        "prompt": PROMPT,
        "sets": {
            one.name: {"use": rules.use(one)} | score_words(model, open_dataset(one.data, "test", context), frames)
            for one in select_sets(rules, SALIENCY_SETS)
        },
    }
    write_result(out, result)
    typer.echo(json.dumps(result["sets"], indent=1))


def score_words(model: SaliencyModel, data: LabelledDataset, frames: int) -> dict[str, Any]:
    """Return the means over the frames."""
    instruments = instrument_classes(data.classes)
    correlations, areas = list[list[float]](), list[list[float]]()
    for index in evenly_spaced(len(data), frames):
        sample = data[index]
        labels = cv2.resize(sample.labels, MAP_SIZE, interpolation=cv2.INTER_NEAREST_EXACT).ravel()
        truth, known = instruments[np.where(labels == IGNORE, 0, labels)], labels != IGNORE
        if not LEAST_TRUTH < truth[known].mean() < 1 - LEAST_TRUTH:
            continue
        right, *wrong = (_map(model, sample.image, word)[known] for word in (PROMPT, *UNKNOWN_WORDS))
        correlations.append([rank_correlation(right, one) for one in wrong])
        areas.append([auroc(one[truth[known]], one[~truth[known]]) or 0.0 for one in (right, *wrong)])
    words, area = np.mean(correlations, axis=0), np.mean(areas, axis=0)
    return {
        "frames": len(areas),
        "rank_correlation": round(float(words.mean()), 4),
        "by_word": dict(zip(UNKNOWN_WORDS, words.round(4).tolist(), strict=True)),
        "auroc": round(float(area[0]), 4),
        "auroc_of_unknown_words": round(float(area[1:].mean()), 4),
    }


def _map(model: SaliencyModel, image: NDArray[np.uint8], word: str) -> NDArray[np.float32]:
    found = saliency(model, image, word, DENSE_MAPS)
    return np.asarray(cv2.resize(found, MAP_SIZE, interpolation=cv2.INTER_AREA), np.float32).ravel()


def rank_correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return Spearman's rank correlation of two arrays (n,) without many equal values."""
    ranks = np.stack([one, other]).argsort(kind="stable").argsort(kind="stable")
    return float(np.asarray(np.corrcoef(ranks))[0, 1])


if __name__ == "__main__":
    raise SystemExit(run_app(app, "saliency_study"))
