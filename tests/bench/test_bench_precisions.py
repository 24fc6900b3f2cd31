"""`cliprl-bench precisions`: the labels that each arithmetic gives away, on frames that nothing was calibrated on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from media import make_clip

pytest.importorskip("nncf")
pytest.importorskip("onnxruntime")

from cliprl.bench.cli import app
from cliprl.bench.commands import precisions
from cliprl.bench.harness.result import read_result
from cliprl.engines import open_bundle
from cliprl.engines.cli.cli_runner import run_app


def test_every_arithmetic_is_scored_and_coarser_ones_give_more_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clip, file = make_clip(tmp_path / "clip.mp4", frames=2), tmp_path / "precisions.json"
    other = make_clip(tmp_path / "other.mp4", frames=4)
    words = [str(clip), "--calibrate", str(other), "--count", "4", "-o", str(file)]
    monkeypatch.setattr(sys, "argv", ["cliprl-bench", "precisions", *words])
    # The int8 encoder that is shipped: to make one takes seconds, and has its tests.
    monkeypatch.setattr(precisions, "add_int8", lambda bundle, images: bundle)
    assert run_app(app, "cliprl-bench") == 0
    result = read_result(file)
    assert result.cases() == [
        "openvino bf16",
        "openvino int8",
        "GPU f16",
        *(f"GPU {p}{name}" for p in ("int8", "fp8") for name in ("", ", narrow layers too", ", grouped layers too")),
    ]
    name = precisions.short_name(str(clip))
    assert name.endswith("clip.mp4")
    shares = {case: found.digest().p50 for case in result.cases() if (found := result.find(case, name))}
    assert len(shares) == len(result.cases())
    assert all(0 < share <= 100 for share in shares.values())
    assert shares["GPU f16"] > 90
    assert any("calibrated on 4 frames of" in note and "other.mp4" in note for note in result.notes)


def test_frames_come_evenly_out_of_a_source_through_the_view(tmp_path: Path) -> None:
    bundle = open_bundle("small")
    images = precisions.sample_frames(str(make_clip(tmp_path / "clip.mp4", frames=6)), 3, bundle)
    assert images.shape == (3, bundle.manifest.height, bundle.manifest.width, 3)
    assert images.std() > 0


def test_the_readme_quotes_the_committed_figures() -> None:
    root = Path(__file__).resolve().parents[2]
    result = read_result(root / "engines" / "results" / "precisions.json")
    rows = [line.split("|")[2:-1] for line in (root / "engines" / "README.md").read_text(encoding="utf-8").splitlines()]
    table = [
        ["openvino bf16", "openvino int8", "GPU f16", "GPU int8", "GPU fp8"],
        ["GPU int8, narrow layers too", "GPU fp8, narrow layers too"],
        ["GPU int8, grouped layers too", "GPU fp8, grouped layers too"],
    ]
    for cases in table:
        means = [found.digest().p50 for case in cases if (found := result.find(case, "mean of all frames"))]
        assert [f"{mean:.1f} %" for mean in means] in [[cell.strip() for cell in row if cell.strip()] for row in rows]
