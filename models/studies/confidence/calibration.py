"""Fit the confidence of a bundle on the protocol's sets for choosing, and score it on those for reporting.

    python -m cliprl.models.studies.confidence.calibration --bundle FOLDER --set data.root=FOLDER --out runs/card --write

It shares the folder OUT/rows with the model card. `--write` puts `confidence.json` into the bundle and seals it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.engines import Bundle, ConfidenceSpec, UsageError, open_bundle, seal_bundle
from cliprl.engines.bundle.confidence import CONFIDENCE_FILE
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.dataset_spec import DatasetSpec
from cliprl.models.data.protocol import CHOSEN, REPORTED, ProtocolSet, load_protocol
from cliprl.models.data.registry import DatasetContext, open_dataset
from cliprl.models.evaluation import study_command
from cliprl.models.evaluation.frame_scores import FrameScores
from cliprl.models.evaluation.scoring.ranking import auroc
from cliprl.models.studies.confidence.fits import (
    LogisticModel,
    Values,
    best_threshold,
    calibration_error,
    distances,
    fit_distance,
)
from cliprl.models.studies.model_card import (
    Row,
    RowScorer,
    card_rows,
    confidence_scores,
    failed_frames,
    outside_row,
    uncalibrated_error,
    with_instrument,
)
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.pipeline.core.confidence import CELL_INPUTS, COLOR_STATISTICS, FRAME_STATISTICS, logistic

# Cells of a row that the calibration is fitted to, drawn at random. Clean rows have this weight, the others 1.
_MOST_CELLS, CLEAN_WEIGHT, PENALTY = 8000, 2.0, 1e-3
# The statistics of a frame that the calibration uses. More of them fit better, and are worse on sets left out.
CALIBRATION_STATISTICS = ("entropy", "instrument entropy", "undecided")
# Share of the frames for choosing, clean and at severities up to 3, that are below the threshold of "unfamiliar".
FAMILIAR, FAMILIAR_SEVERITY = 0.99, 3
# Frames of a set of training data that the distance is fitted to, about.
FAMILIAR_FRAMES = 150

# The use of a set that the bundle was trained on.
_TRAINED = "trained on"

Rows = Mapping[Row, FrameScores]


def fit_calibration(rows: Rows) -> LogisticModel:
    """Fit the probability that a cell called instrument is one, to the rows that show instruments."""
    rng, inputs, right, counts = np.random.default_rng(0), [], [], []
    unused = [len(CELL_INPUTS) + n for n, name in enumerate(FRAME_STATISTICS) if name not in CALIBRATION_STATISTICS]
    for row, scores in rows.items():
        drawn = rng.permutation(len(scores.right))[:_MOST_CELLS]
        if with_instrument(scores).any() and len(drawn):
            values = scores.cell_values()[drawn]
            values[:, unused] = 0
            inputs.append(values)
            right.append(scores.right[drawn])
            counts.append(np.full(len(drawn), (1 if row.severity else CLEAN_WEIGHT) / len(drawn)))
    if not inputs:
        raise UsageError(
            "no frame of the sets for choosing shows an instrument of which the bundle finds a cell: list labelled frames with "
            "instruments in the protocol, or train the bundle further"
        )
    return LogisticModel.fit(np.concatenate(inputs), np.concatenate(right), np.concatenate(counts), PENALTY)


def fit_doubt(rows: Rows) -> LogisticModel:
    """Fit the probability that the instrument IoU of a frame with an instrument is below 0.5."""
    known = [(scores, with_instrument(scores)) for scores in rows.values()]
    inputs = np.concatenate([scores.statistics[there] for scores, there in known])
    failed = np.concatenate([failed_frames(scores)[there] for scores, there in known])
    if failed.all() or not failed.any():
        side, remedy = (
            ("below", "train the bundle further") if failed.any() else ("above", "add severities = [3, 5] to them")
        )
        raise UsageError(
            f"the frames with instruments of the sets for choosing all have an IoU {side} 0.5, and doubt is fitted to both: "
            f"{remedy}"
        )
    return LogisticModel.fit(inputs, failed)


def fit_confidence(rows: Rows, familiar: Rows = MappingProxyType({})) -> ConfidenceSpec:
    """Fit all parts to the rows of sets for choosing; the distance also to the clean rows of `familiar` sets."""
    calibration, doubt = fit_calibration(rows).spec(), fit_doubt(rows).spec()
    familiarity = fit_distance([s.frame_values() for row, s in {**rows, **familiar}.items() if not row.severity])
    near = np.concatenate([s.frame_values() for row, s in rows.items() if row.severity <= FAMILIAR_SEVERITY])
    known = [(scores, with_instrument(scores)) for scores in rows.values()]
    values = np.concatenate([logistic(doubt, scores.statistics[there]) for scores, there in known])
    failed = np.concatenate([failed_frames(scores)[there] for scores, there in known])
    return ConfidenceSpec(
        FRAME_STATISTICS,
        CELL_INPUTS,
        COLOR_STATISTICS,
        calibration,
        doubt,
        familiarity,
        best_threshold(values, failed),
        round(float(np.quantile(distances(familiarity, near), FAMILIAR)), 4),
    )


def score_confidence(spec: ConfidenceSpec, rows: Rows) -> dict[str, Any]:
    """Return the scores of a confidence by row: ECE before and after, and the shares of frames that are marked."""
    result = {}
    for row, scores in rows.items():
        found = {"ece": uncalibrated_error(scores), **confidence_scores(spec, scores)}
        if not with_instrument(scores).any():
            found |= {"ece": None, "ece_calibrated": None}
        result[row.title] = {"use": row.use, "severity": row.severity, "frames": len(scores.steps), **found}
    return result


def rank_scores(spec: ConfidenceSpec, rows: Rows) -> dict[str, float | None]:
    """Return AUROCs: of doubt for failed frames, and of the distance, of 1 - confidence and of both for each set outside."""
    known = [(scores, with_instrument(scores)) for row, scores in rows.items() if not row.set.outside]
    doubt = np.concatenate([logistic(spec.doubt, scores.statistics[there]) for scores, there in known])
    failed = np.concatenate([failed_frames(scores)[there] for scores, there in known])
    clean = [(row, scores) for row, scores in rows.items() if not row.severity]
    result = {"doubt, failed frames": auroc(doubt[failed], doubt[~failed])}
    for name, measure in _MEASURES.items():
        within = np.concatenate([measure(spec, scores) for row, scores in clean if not row.set.outside])
        for row, scores in clean:
            if row.set.outside:
                result[f"{name}, {row.set.name}"] = auroc(measure(spec, scores), within)
    return result


def _far(spec: ConfidenceSpec, scores: FrameScores) -> Values:
    return distances(spec.familiarity, scores.frame_values())


def _unsure(_: ConfidenceSpec, scores: FrameScores) -> Values:
    return np.asarray(1 - scores.confidence)


def _both(spec: ConfidenceSpec, scores: FrameScores) -> Values:
    return _far(spec, scores) * _unsure(spec, scores)


_MEASURES: dict[str, Callable[[ConfidenceSpec, FrameScores], Values]] = {
    "distance": _far,
    "1 - confidence": _unsure,
    "distance x (1 - confidence)": _both,
}


def left_out(rows: Rows) -> dict[str, Any]:
    """Return scores on the sets for choosing, each by a fit without that set: the mean ECE, and the AUROC of doubt."""
    errors, doubts, failures = list[float](), list[Values](), list[NDArray[np.bool_]]()
    for name in dict.fromkeys(row.set.name for row, scores in rows.items() if with_instrument(scores).any()):
        others = {row: scores for row, scores in rows.items() if row.set.name != name}
        calibration, doubt = fit_calibration(others).spec(), fit_doubt(others)
        for row, scores in rows.items():
            if row.set.name == name:
                errors.append(calibration_error(logistic(calibration, scores.cell_values()), scores.right) or 0.0)
                there = with_instrument(scores)
                doubts.append(doubt.logits(scores.statistics[there]))
                failures.append(failed_frames(scores)[there])
    failed, values = np.concatenate(failures), np.concatenate(doubts)
    return {"ece": round(float(np.mean(errors)), 4), "doubt_auroc": auroc(values[failed], values[~failed])}


def left_out_distance(rows: Rows, familiar: Rows, outside: Rows) -> float | None:
    """Return the AUROC of images outside among the clean frames of each set for choosing, by a fit without that set."""
    clean = {row: scores.frame_values() for row, scores in rows.items() if not row.severity}
    others = [scores.frame_values() for scores in familiar.values()]
    if not outside or len(clean) + len(others) < 2:
        return None
    within = [
        distances(fit_distance([*(v for other, v in clean.items() if other is not row), *others]), values)
        for row, values in clean.items()
    ]
    whole = fit_distance([*clean.values(), *others])
    far = [distances(whole, scores.frame_values()) for scores in outside.values()]
    return auroc(np.concatenate(far), np.concatenate(within))


def familiar_row(line: str, context: DatasetContext) -> Row:
    """Return the row of a data set line of training data, of which about `FAMILIAR_FRAMES` frames are taken."""
    every = max(1, len(open_dataset(line, "train", context)) // FAMILIAR_FRAMES)
    return Row(ProtocolSet(DatasetSpec.parse(line).without_path(), line, every=every), 0, _TRAINED)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def fit(
    out: Annotated[Path, typer.Option(help="Folder for the rows and confidence.json.")],
    bundle: study_command.BundleOption = "small",
    set_: study_command.SetOption = None,
    protocol: study_command.ProtocolOption = None,
    outside: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:FOLDER", help="Also report on images that are out of distribution. May be repeated."
        ),
    ] = None,
    outside_chosen: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:FOLDER", help="Images out of distribution that settings are chosen by. May be repeated."
        ),
    ] = None,
    familiar: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:FOLDER", help="Training data that the distance is fitted to as well. May be repeated."
        ),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Put it into the bundle, and seal the bundle again.")] = False,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Score it on the sets for reporting.")] = True,
    quiet: study_command.QuietOption = False,
) -> None:
    """Fit calibration, doubt and familiarity. It resumes; OUT/confidence-scores.json has the scores."""
    rules, opened = load_protocol(protocol), open_bundle(bundle)
    context = study_command.study_context(set_, out)
    further = [outside_row(line) for line in outside or ()]
    chosen = [replace(outside_row(line), use=CHOSEN) for line in outside_chosen or ()]
    trained = [familiar_row(line, context) for line in familiar or ()]
    wanted = [row for row in card_rows(rules, ()) if report or row.use == CHOSEN]
    with ProgressDisplay.open(quiet) as display:
        scorer = RowScorer(opened, context, out / "rows", display)
        rows = {row: scorer.score(row) for row in [*wanted, *further, *chosen, *trained]}
    choosing = {row: scores for row, scores in rows.items() if row.use == CHOSEN and not row.set.outside}
    known = {row: rows[row] for row in trained}
    spec = fit_confidence(choosing, known)
    reported = {row: scores for row, scores in rows.items() if row.use == REPORTED}
    result = {
        "bundle": opened.manifest.name,
        "hashes": {name: value for name, value in opened.manifest.hashes.items() if name != CONFIDENCE_FILE},
        "thresholds": {"unsure": spec.unsure, "unfamiliar": spec.unfamiliar},
        "familiar": {row.set.name: len(scores.steps) for row, scores in known.items()},
        "sets_left_out": left_out(choosing)
        | {"outside_auroc": left_out_distance(choosing, known, {row: rows[row] for row in chosen})},
        "auroc": rank_scores(spec, reported) if reported else {},
        "rows": score_confidence(spec, rows),
    }
    study_command.write_result(out / "confidence.json", spec.to_text())
    study_command.write_result(out / "confidence-scores.json", result)
    typer.echo(_table(result))
    if write:
        _install(opened, spec)
        typer.echo(f"wrote {opened.path / CONFIDENCE_FILE}")


def _install(bundle: Bundle, spec: ConfidenceSpec) -> None:
    seal_bundle(bundle.path, bundle.manifest, bundle.embeddings, {CONFIDENCE_FILE: spec.to_text().encode()})


def _table(result: Mapping[str, Any]) -> str:
    lines = [f"{key}: {value}" for key, value in (*result["thresholds"].items(), *result["sets_left_out"].items())]
    lines += [f"AUROC, {key}: {value}" for key, value in result["auroc"].items()]
    for title, entry in result["rows"].items():
        error = "" if entry["ece"] is None else f"ECE {entry['ece']:.3f} -> {entry['ece_calibrated']:.3f}, "
        lines.append(
            f"{title}: {error}unsure {100 * entry['unsure']:.0f} %, unfamiliar {100 * entry['unfamiliar']:.0f} %"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(run_app(app, "calibration"))
