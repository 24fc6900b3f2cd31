"""The engines' table for GPUs, as far as it goes without one: on the CPU, with the shipped bundle and with one made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")

from cliprl.bench.commands import engines
from cliprl.bench.cuda import engines as gpu_engines
from cliprl.bench.cuda import gpu_tests
from cliprl.bench.harness import timing
from cliprl.bench.harness.result import read_result
from cliprl.engines import open_bundle, seal_bundle
from cliprl.engines.backends.gpu_discovery import find_driver
from cliprl.engines.bundle.bundle import RANGES_FILE


def here(function: Callable[..., Any], *arguments: Any, on_report: object = None) -> Any:
    return function(*arguments)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "in_fresh_process", here)
    monkeypatch.setattr(timing, "in_fresh_process", here)


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_one_command_writes_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_engines, "BATCHES", (1, 2))
    words = ["--device", "cpu", "--sizes", "small", "--rounds", "1", "--seconds", "0.02", "--skip-tests"]
    assert gpu_engines.main([*words, "-o", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*-gpu-engines.json")
    result = read_result(path)
    for backend, precision in engines.engine_names("small", "cpu"):
        for case, names in ((precision, {"encoder", "refinement step"}), (f"{precision}, batch 2", {"encoder"})):
            found = [series for series in result.series if series.case == f"small {backend} {case}"]
            assert {series.name for series in found} == names
    assert any("plans for other GPUs were not tried" in note for note in result.notes)


def test_bundle_gets_ranges_and_shipped_one_stays_unchanged(tmp_path: Path) -> None:
    shipped = open_bundle("small")
    bundle = gpu_engines.calibrated("small", tmp_path, lambda text: None)
    assert RANGES_FILE in bundle.manifest.hashes
    assert bundle.path.is_relative_to(tmp_path)
    assert open_bundle("small").manifest.hashes == shipped.manifest.hashes


def test_networks_that_were_never_trained_are_timed_without_a_verdict(tmp_path: Path) -> None:
    from dataclasses import replace

    copy = engines.copy_bundle(open_bundle("small"), tmp_path / "copy")
    (copy.path / "probe.npz").unlink()
    manifest = replace(copy.manifest, name="made", training={"weights": "random, never trained"})
    bundle = seal_bundle(copy.path, manifest, copy.embeddings)
    variant = engines._find_variant(str(bundle.path), "cpu", "openvino", "f32", 1)
    pair = engines._load(variant)
    assert "comparisons" not in pair.report
    # What was not judged is kept under a name of its own: nobody who asks for a judged engine finds it.
    assert engines.EngineCache().read(variant.fields()) is None


def test_the_tests_that_both_gpu_commands_run_are_there() -> None:
    # Both commands run in a checkout; the package under test may be installed elsewhere.
    checkout = Path(__file__).resolve().parents[2]
    for module, path in [
        (gpu_engines, gpu_engines.ENGINE_TESTS),
        (gpu_tests, gpu_tests.GPU_TESTS),
        (gpu_tests, gpu_tests.SCRIPT),
    ]:
        assert (checkout / path.relative_to(module.ROOT)).is_file()
