"""The fit of a bundle's confidence: regression, distance, thresholds, and that it repairs what is overconfident."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cliprl.engines import UsageError, open_bundle
from cliprl.models.data.protocol import ProtocolSet
from cliprl.models.evaluation.frame_scores import FrameScores
from cliprl.models.studies import model_card
from cliprl.models.studies.confidence import calibration, guard_study
from cliprl.models.studies.confidence.calibration import fit_confidence, left_out, rank_scores, score_confidence
from cliprl.models.studies.confidence.fits import (
    LogisticModel,
    best_threshold,
    calibration_error,
    distances,
    fit_distance,
)
from cliprl.models.studies.model_card import Row, RowScorer, summarize_row
from cliprl.pipeline.core.confidence import CELL_INPUTS, COLOR_STATISTICS, FRAME_STATISTICS, logistic

CELLS = 40


def rows_of(
    count: int, seed: int, *, severity: int = 0, name: str = "a", outside: bool = False
) -> tuple[Row, FrameScores]:
    """Frames of 40 cells that claim 0.95 and are right with the frame's quality, which the statistics show."""
    rng = np.random.default_rng(seed)
    quality = rng.uniform(0.2, 1, count) * (0.5 if severity else 1)
    overlap = np.rint(100 * quality).astype(np.int64)
    statistics = rng.normal(0, 1, (count, len(FRAME_STATISTICS)))
    statistics[:, FRAME_STATISTICS.index("entropy")] = 3 * quality + 9 * outside
    cells = np.full((count * CELLS, len(CELL_INPUTS)), 0.95, np.float32)
    counts = np.stack([overlap, np.full(count, 100), np.zeros(count, np.int64)], axis=1)
    colors = rng.uniform(size=(count, len(COLOR_STATISTICS)))
    scores = FrameScores(
        counts, counts, np.full(count, 1000), np.zeros(count, np.int64), quality, statistics, np.full((count, 2), 0.5),
        colors,
        np.full(count, CELLS), np.zeros((count, 4), np.int64), np.full(count, "c"), np.full(count, "s"), cells,
        rng.uniform(size=count * CELLS) < np.repeat(quality, CELLS),
    )  # fmt: skip
    return Row(ProtocolSet(name, f"folder:{name}", outside=outside), severity, "chosen"), scores


def test_the_fit_repairs_overconfidence_and_ranks_failures_and_outsiders() -> None:
    choosing = dict(rows_of(60, seed, severity=severity, name=name) for seed, (name, severity) in enumerate(PLAN))
    spec = fit_confidence(choosing)
    reported = dict([rows_of(80, 10, name="c"), rows_of(20, 11, name="d", outside=True)])
    entry = score_confidence(spec, reported)["c (chosen)"]
    assert entry["ece"] > 0.3
    assert entry["ece_calibrated"] < 0.08
    ranks = rank_scores(spec, reported)
    assert (ranks["doubt, failed frames"] or 0) > 0.95
    assert (ranks["distance, d"] or 0) > 0.95
    assert score_confidence(spec, reported)["d (chosen)"]["unfamiliar"] > 0.9
    assert left_out(choosing)["ece"] < 0.08
    row, scores = rows_of(80, 10, name="c")
    assert summarize_row(row, scores, spec)["ece_calibrated"] == entry["ece_calibrated"]


PLAN = [("a", 0), ("a", 3), ("b", 0), ("b", 3)]


def test_regression_distance_and_threshold_on_known_data() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(5, 2, (4000, 3))
    right = rng.uniform(size=4000) < 1 / (1 + np.exp(-(inputs[:, 1] - 5)))
    spec = LogisticModel.fit(inputs, right, penalty=0.0).spec()
    assert np.allclose(spec.weights, (0, 1, 0), atol=0.1)
    assert spec.intercept == pytest.approx(-5, abs=0.6)
    assert (calibration_error(logistic(spec, inputs), right) or 1) < 0.03
    assert calibration_error(np.empty(0), np.empty(0, bool)) is None
    far = distances(fit_distance([inputs]), np.array([[5.0, 5, 5], [5, 5, 15]]))
    assert far == pytest.approx([0, 5], abs=0.3)
    both = fit_distance([inputs, inputs + np.array([0, 0, 20])])
    assert distances(both, np.array([[5.0, 5, 5], [5, 5, 25]])) == pytest.approx([0, 0], abs=0.1)
    assert distances(both, np.array([[5.0, 5, 15]]))[0] > 1
    assert best_threshold(np.array([0.1, 0.2, 0.7, 0.9]), np.array([False, False, True, True])) == 0.7


def test_a_fitted_confidence_is_written_into_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "net"
    shutil.copytree(open_bundle("small").path, bundle)
    before = open_bundle(bundle)
    protocol = tmp_path / "protocol.toml"
    protocol.write_text(
        "[[choosing]]\nname = 'a'\ndata = 'folder:a'\nseverities = [3]\n[[reporting]]\nname = 'b'\ndata = 'folder:b'\n"
    )
    classes = len(before.manifest.classes)

    def scored(_: RowScorer, row: Row) -> FrameScores:
        scores = rows_of(30, 3, severity=row.severity)[1]
        means = np.full((30, classes), 1 / classes)
        return FrameScores(**{**scores.arrays(), "means": means})  # type: ignore[arg-type]

    monkeypatch.setattr(RowScorer, "score", scored)
    monkeypatch.setattr(calibration, "left_out", lambda rows: {})
    monkeypatch.setattr(model_card, "score_frames", None)
    calibration.fit(tmp_path / "out", str(bundle), protocol=protocol, outside=None, write=True, report=True, quiet=True)
    after = open_bundle(bundle)
    assert after.confidence is not None
    assert after.confidence.to_text() == (tmp_path / "out" / "confidence.json").read_text()
    assert after.manifest.classes == before.manifest.classes
    scores = json.loads((tmp_path / "out" / "confidence-scores.json").read_text())
    assert set(scores["rows"]) == {"b", "a (chosen)", "a, severity 3 (chosen)"}
    row = Row(ProtocolSet("b", "folder:b"), 0, "reported")
    assert row.file(before) == row.file(after)  # rows of the card stay valid


def test_the_readme_quotes_the_results() -> None:
    root = Path(__file__).resolve().parents[2] / "models"
    result, guard = (
        json.loads((root / "results" / f"{n}.json").read_text()) for n in ("confidence-small", "guard-study")
    )
    page = (root / "studies" / "confidence" / "README.md").read_text(encoding="utf-8")
    for name in ("EndoVis 2015 D1", "EndoVis 2015 OP3", "laparoscopy, four cases and a clip"):
        clean, worse = (result["rows"][f"{name}{end}"] for end in ("", ", severity 3"))
        errors = (f"{row['ece']:.3f} → {row['ece_calibrated']:.3f}" for row in (clean, worse))
        assert f"| {name} | {' | '.join(errors)} |" in page
    for name in ("distance", "1 - confidence"):
        assert f"{result['auroc'][f'{name}, eye surgery clip']:.3f}" in page
    skin = (f"{guard['auc'][r]['skin']:.3f}, {100 * guard['judged outside'][r]['skin']:.0f} %" for r in guard["auc"])
    assert f"in three lights | {' | '.join(skin)} |" in page
    parts = json.loads((root / "results" / "part-study.json").read_text())
    for name, entry in parts["sets"].items():
        every, sure = (entry["shares"][f"{share:g}"] for share in (0.0, parts["part_share"]))
        right, iou = ((every[key], sure[key]) for key in ("named_right", "instrument_iou"))
        figures = f"{100 * right[0]:.1f} → {100 * right[1]:.1f} % | {100 * sure['not_named']:.0f} % | {iou[0]:.3f} → {iou[1]:.3f}"
        assert f"| {name}{' (chosen)' * (entry['use'] == 'chosen')} | {figures} |" in page
    assert f"its share of {parts['part_share']:g}." in page


def test_sets_without_failed_frames_are_refused() -> None:
    row, scores = rows_of(10, 0)
    whole = np.array([[100, 100, 0]] * 10)
    with pytest.raises(UsageError, match=r"all have an IoU above 0\.5.*add severities = \[3, 5\] to them"):
        fit_confidence({row: FrameScores(**{**scores.arrays(), "refined": whole})})  # type: ignore[arg-type]
    none = {"right": np.zeros(0, bool), "cells": np.zeros((0, len(CELL_INPUTS)), np.float32)}
    with pytest.raises(UsageError, match=r"of which the bundle finds a cell: .* or train the bundle further"):
        fit_confidence({row: FrameScores(**{**scores.arrays(), **none})})  # type: ignore[arg-type]


def test_the_guard_study_names_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    far = np.zeros(2)
    monkeypatch.setattr(guard_study, "write_skin", lambda folder: 0)
    monkeypatch.setattr(RowScorer, "score", lambda *rest: SimpleNamespace(frame_values=lambda: far))
    monkeypatch.setattr(guard_study, "distances", lambda *rest: far)
    monkeypatch.setattr(guard_study, "red_shares", lambda *rest: far)
    guard_study.compare_rules(tmp_path, "small", quiet=True)
    result = json.loads((tmp_path / "guard-study.json").read_text())
    assert (result["bundle"], result["hashes"]) == ("small", open_bundle("small").manifest.hashes)
