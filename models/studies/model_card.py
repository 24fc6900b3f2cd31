"""Score a bundle on every set of the evaluation protocol, and write the model card's tables.

    python -m cliprl.models.studies.model_card --bundle small --set data.root=FOLDER --out runs/card

A row (a set at a severity) that OUT/rows holds for the same bundle and the same data is not scored again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path, PurePath
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from cliprl.engines import (
    Bundle,
    ConfidenceSpec,
    UsageError,
    open_bundle,
    parse_size,
    seal_bundle,
    size_of,
    size_text,
    with_input_size,
)
from cliprl.engines.atomic_write import atomic_write
from cliprl.engines.bundle.bundle import INT8_ENCODER, INT8_WEIGHTS, PROMPT_HEAD
from cliprl.engines.bundle.confidence import CONFIDENCE_FILE
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data.protocol import CHOSEN, REPORTED, Protocol, ProtocolSet, load_protocol, select_sets
from cliprl.models.data.registry import DatasetContext, open_dataset
from cliprl.models.data.sets.corrupted_dataset import CorruptedDataset
from cliprl.models.evaluation import study_command
from cliprl.models.evaluation.frame_scores import FrameScores, score_frames
from cliprl.models.evaluation.scoring.bootstrap import BLOCK_FRAMES, block_interval, blocks_of_clips
from cliprl.models.evaluation.scoring.ranking import auroc
from cliprl.models.studies.confidence.fits import calibration_error, distances
from cliprl.models.studies.model_card_tables import SIDES, manifest_scores, markdown
from cliprl.models.training.callbacks import ProgressDisplay
from cliprl.pipeline.core.confidence import CELL_INPUTS, is_unsure, logistic

# Files of a bundle that the rows, which are scored in f32, do not depend on.
NOT_IN_ROWS = (CONFIDENCE_FILE, PROMPT_HEAD, INT8_ENCODER, INT8_WEIGHTS)
# Raised when the content of a row changes, so that older rows are scored again.
VERSION = 4
# Severities of the rows of a card, 0 is clean.
CARD_SEVERITIES = (0, 3, 5, 2, 4)
# A frame counts as failed below this instrument IoU.
FAILED = 0.5
# Frames with less instrument than this share of the image do not count for doubt.
LEAST_AREA = 0.005


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the card: a set of the protocol at a severity, and the word for its use.

    corrupt_at: the size (height, width) of the corrupted frames; None: the input size of the bundle.
    """

    set: ProtocolSet
    severity: int
    use: str
    corrupt_at: tuple[int, int] | None = None

    @property
    def title(self) -> str:
        """Return the title: the set, the severity, and "chosen" for a set that settings were chosen on."""
        severity = f", severity {self.severity}" if self.severity else ""
        return f"{self.set.name}{severity}{f' ({CHOSEN})' if self.use == CHOSEN else ''}"

    def file(self, bundle: Bundle, content: str = "") -> str:
        """Return the name of the row's file, which depends on the bundle, the row, its content and this module's version."""
        manifest = bundle.manifest
        hashes = {name: value for name, value in manifest.hashes.items() if name not in NOT_IN_ROWS}
        key: list[Any] = [VERSION, hashes, self.set.data, self.set.ignore, self.set.every, self.severity]
        if manifest.restoration is not None:
            key += [manifest.steps, asdict(replace(manifest.restoration, note=""))]
        if manifest.regions is not None:
            key += [asdict(manifest.regions)]
        key += [content] if content else []
        if bundle.own_size or self.corrupt_at:
            key += [size_of(bundle), self.corrupt_at if self.severity else None]
        return f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]}.npz"


def outside_row(line: str) -> Row:
    """Return the row of a data set line whose images are out of distribution, under the name of its folder."""
    return Row(ProtocolSet(PurePath(line.partition("?")[0]).name, line, outside=True), 0, REPORTED)


def card_rows(
    protocol: Protocol,
    names: Sequence[str],
    severities: Sequence[int] = CARD_SEVERITIES,
    corrupt_at: tuple[int, int] | None = None,
) -> Iterator[Row]:
    """Yield the rows of the named sets, or of all, at these severities in their order."""
    sets = select_sets(protocol, names)
    for severity in severities:
        for one in sets:
            if not severity or severity in one.severities:
                yield Row(one, severity, protocol.use(one), corrupt_at)


class RowScorer:
    """Scores a bundle on rows of the card. Scores are kept in files of `folder`; the frames of a set are hashed once."""

    def __init__(self, bundle: Bundle, context: DatasetContext, folder: Path, display: ProgressDisplay) -> None:
        self._bundle, self._folder, self._display = bundle, folder, display
        self._open = partial(open_dataset, side="test", context=context)
        self._content = cache(partial(study_command.content_of, context=context))

    def score(self, row: Row) -> FrameScores:
        """Return the frame scores of a row: read from its file, or made and written there."""
        path = self._folder / row.file(self._bundle, self._content(row.set))
        if path.is_file():
            with np.load(path) as file:
                return FrameScores(**{name: file[name] for name in file.files})
        data = self._open(row.set.data)
        if row.severity:
            data = CorruptedDataset(data, row.severity, row.corrupt_at or size_of(self._bundle))
        report = partial(self._display.on_progress, row.title)
        found = score_frames(self._bundle, data, row.set.ignore, row.set.every, report)
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as opened:
            np.savez_compressed(opened, **found.arrays())  # type: ignore[arg-type]
        return found


def summarize_row(row: Row, scores: FrameScores, confidence: ConfidenceSpec | None = None) -> dict[str, Any]:
    """Return the scores of a row as plain JSON values; None for what is undefined. Shares are 0..1, gains in points.

    `confidence`: of the bundle, for the error after calibration and the marks of frames.
    """
    blocks = blocks_of_clips(scores.clips)
    result: dict[str, Any] = {
        "use": row.use,
        "data": row.set.data,
        "severity": row.severity,
        "outside": row.set.outside,
        "frames": len(scores.steps),
        "steps": round(float(scores.steps.mean()), 3),
        "false_alarms": {side: _ratio(getattr(scores, side)[:, 2], scores.known) for side in SIDES},
        "ece_of_instrument_cells": uncalibrated_error(scores),
        "consecutive_iou": {
            side: _ratio(scores.consecutive[:, n], scores.consecutive[:, n + 1])
            for side, n in zip(SIDES, (0, 2), strict=True)
        },
    }
    if confidence:
        result |= confidence_scores(confidence, scores)
    if (scores.base[:, 1] > scores.base[:, 2]).any():
        result["iou"] = {side: _ratio(getattr(scores, side)[:, 0], getattr(scores, side)[:, 1]) for side in SIDES}
        result["iou_interval"] = {side: block_interval([(getattr(scores, side)[:, :2], 1.0)], blocks) for side in SIDES}
        result["gain_interval"] = block_interval([(scores.refined[:, :2], 100.0), (scores.base[:, :2], -100.0)], blocks)
        result["sequences"] = {
            name: {side: _ratio(*getattr(scores, side)[scores.sequences == name, :2].T) for side in SIDES}
            for name in dict.fromkeys(scores.sequences.tolist())
        }
    return result


def uncalibrated_error(scores: FrameScores) -> float | None:
    """Return the calibration error (ECE) of cells called instrument, by the network's own probabilities."""
    return calibration_error(scores.cells[:, CELL_INPUTS.index("probability")], scores.right)


def confidence_scores(confidence: ConfidenceSpec, scores: FrameScores) -> dict[str, float | None]:
    """Return the calibration error after calibration, and the shares of frames that are marked."""
    doubt = logistic(confidence.doubt, scores.statistics)
    far = distances(confidence.familiarity, scores.frame_values())
    return {
        "ece_calibrated": calibration_error(logistic(confidence.calibration, scores.cell_values()), scores.right),
        "unsure": round(float(is_unsure(confidence, doubt, scores.statistics).mean()), 4),
        "unfamiliar": round(float((far >= confidence.unfamiliar).mean()), 4),
    }


def doubt_scores(
    rows: Sequence[tuple[Row, FrameScores]], confidence: ConfidenceSpec | None = None
) -> dict[str, float | None]:
    """Return AUROCs over the reported rows, by name: of failed frames that show an instrument, and of frames outside.

    Failed frames by the doubt and by 1 - confidence; clean frames outside by the distance and by 1 - confidence. `confidence`
    None: not by doubt and distance.
    """
    reported = [(row, scores) for row, scores in rows if row.use != CHOSEN]
    # The frames of each kind: which count, and which are to be found.
    frames = {
        "failed_frames": [
            (scores, with_instrument(scores), failed_frames(scores)) for row, scores in reported if not row.set.outside
        ],
        "outside": [
            (scores, scores.known >= 0, np.full(len(scores.known), row.set.outside))
            for row, scores in reported
            if not row.severity
        ],
    }
    result = {f"{kind}_by_confidence": _auroc(found, _unsure) for kind, found in frames.items()}
    if confidence:
        result["failed_frames"] = _auroc(frames["failed_frames"], lambda s: logistic(confidence.doubt, s.statistics))
        result["outside"] = _auroc(frames["outside"], lambda s: distances(confidence.familiarity, s.frame_values()))
    return result


def _auroc(
    frames: Sequence[tuple[FrameScores, NDArray[np.bool_], NDArray[np.bool_]]],
    measure: Callable[[FrameScores], NDArray[np.float64]],
) -> float | None:
    values = _joined([measure(scores)[counted] for scores, counted, _ in frames])
    positive = _joined([sought[counted] for _, counted, sought in frames]) > 0
    return auroc(values[positive], values[~positive])


def _unsure(scores: FrameScores) -> NDArray[np.float64]:
    return np.asarray(1 - scores.confidence, np.float64)


def with_instrument(scores: FrameScores) -> NDArray[np.bool_]:
    """Return the frames whose truth shows an instrument on at least `LEAST_AREA` of its known pixels, (N,)."""
    there = scores.refined[:, 1] - scores.refined[:, 2]
    return np.asarray(there >= np.maximum(1, LEAST_AREA * scores.known), np.bool_)


def failed_frames(scores: FrameScores) -> NDArray[np.bool_]:
    """Return the frames whose refined instrument IoU is below `FAILED`, (N,)."""
    return np.asarray(scores.refined[:, 0] < FAILED * scores.refined[:, 1], np.bool_)


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0)


def _ratio(top: NDArray[np.int64], bottom: NDArray[np.int64]) -> float | None:
    return round(float(top.sum()) / float(bottom.sum()), 5) if bottom.sum() else None


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def write_card(
    out: Annotated[Path, typer.Option(help="Folder for the rows, card.json and card.md.")],
    bundle: study_command.BundleOption = "small",
    set_: study_command.SetOption = None,
    protocol: study_command.ProtocolOption = None,
    only: Annotated[list[str] | None, typer.Option(help="Score the set of this name alone. May be repeated.")] = None,
    clean: Annotated[bool, typer.Option("--clean", help="Leave out the rows with corruption.")] = False,
    severity: Annotated[
        list[int] | None, typer.Option(help="Score this severity alone, 0 is clean. May be repeated.")
    ] = None,
    input_size: study_command.InputSizeOption = None,
    corrupt_at: Annotated[
        str | None,
        typer.Option(metavar="HEIGHTxWIDTH", help="Size of corrupted frames.", show_default="the input size"),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the scores into the bundle's manifest.")] = False,
    quiet: study_command.QuietOption = False,
) -> None:
    """Score a bundle on the protocol's sets. It resumes; card.json and card.md are written after each row."""
    rules = load_protocol(protocol)
    opened = with_input_size(open_bundle(bundle), input_size)
    if write and (opened.own_size or corrupt_at or severity):
        raise UsageError("--write is for all scores at the bundle's own input size: leave the other options out")
    severities = (0,) if clean else tuple(severity or CARD_SEVERITIES)
    rows = card_rows(rules, only or (), severities, parse_size(corrupt_at) if corrupt_at else None)
    context = study_command.study_context(set_, out)
    done: list[tuple[Row, FrameScores]] = []
    with ProgressDisplay.open(quiet) as display:
        scorer = RowScorer(opened, context, out / "rows", display)
        for row in rows:
            done.append((row, scorer.score(row)))
            card = {
                "bundle": opened.manifest.name,
                "hashes": dict(opened.manifest.hashes),
                **({"input_size": size_text(size_of(opened))} if opened.own_size or corrupt_at else {}),
                **({"corrupt_at": corrupt_at} if corrupt_at else {}),
                "block": BLOCK_FRAMES,
                "rows": {one.title: summarize_row(one, scores, opened.confidence) for one, scores in done},
                "doubt_auroc": doubt_scores(done, opened.confidence),
            }
            study_command.write_result(out / "card.json", json.dumps(card, indent=1, allow_nan=False))
            study_command.write_result(out / "card.md", markdown(card))
    if write:
        seal_bundle(opened.path, replace(opened.manifest, scores=manifest_scores(card)), opened.embeddings)
    typer.echo((out / "card.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    raise SystemExit(run_app(app, "model_card"))
