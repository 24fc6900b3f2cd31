"""The GPU's benchmark, as far as it goes without one: its streams on a simulated GPU, its start on a bare machine."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import gpu_bench
import numpy as np
import pytest
from gpu_fake import FakeGpu, HostNetwork
from gpu_host import needs_compiler
from media import make_clip
from tiny import NETWORK
from waiting import until

from cliprl.bench.cuda import case_process
from cliprl.bench.cuda.cases import (
    LONG,
    Bench,
    cases,
    check_limits,
    clip_for,
    long_run,
    one_round_series,
    run_case,
    stream_series,
)
from cliprl.bench.cuda.inputs import find_bundle
from cliprl.bench.cuda.runs import GpuStream, run_together, scene_frames
from cliprl.bench.gpu import ROOT, Stopwatch, unpack
from cliprl.bench.harness.meters import Sampler, open_meter
from cliprl.bench.harness.result import Series, read_result
from cliprl.engines import load_engines, open_bundle
from cliprl.engines.backends.gpu_discovery import find_driver
from cliprl.engines.bundle.bundle import ENCODER, REFINER
from cliprl.engines.cache.cache_store import StoredEntry
from cliprl.pipeline.cuda.context import share

# What the bare machine does not have; without `site` the editable install is not found either.
BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("av", "openvino", "pycocotools", "tensorrt", "platformdirs"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


@needs_compiler
def test_streams_see_every_frame_out_and_tell_what_it_took() -> None:
    gpu = FakeGpu(random.Random(3).randrange)
    card, bundle = share(gpu, lambda engine: HostNetwork(gpu, engine)), open_bundle()
    engines, images = load_engines(bundle, precision="f32", threads=1), scene_frames(200, 360, 2)
    assert not images[0][0][:8].any() or images[0][0][:8].max() <= 16
    streams = [GpuStream(card, bundle, images, engines=engines, steps=1) for _ in range(2)]
    seen = run_together(streams, 6)
    assert [(len(one.finished), one.wrong, one.dropped, one.fed) for one in seen] == [(6, 0, 0, 6)] * 2
    assert all(set(one.thread_seconds) == {"encode", "refine", "draw"} for one in seen)
    bench = Bench(card, bundle, engines, images, 1.0, print)
    series = {one.name: one for one in stream_series(bench, "both", seen)}
    assert len(series["latency"].rounds[0]) == 12
    assert series["frames that came out wrong"].rounds[0] == (0.0, 0.0)
    assert all(rate > 0 for rate in series["fps"].rounds[0])


@needs_compiler
def test_a_clip_is_played_again_and_again(tmp_path: Path) -> None:
    gpu = FakeGpu(random.Random(4).randrange)
    card, bundle = share(gpu, lambda engine: HostNetwork(gpu, engine), decoder=0), open_bundle()
    engines = load_engines(bundle, precision="f32", threads=1)
    clip = str(make_clip(tmp_path / "clip.mp4", frames=3))
    (seen,) = run_together([GpuStream(card, bundle, [], clip=clip, coded=False, engines=engines, steps=0)], 7)
    assert (len(seen.finished), seen.wrong, seen.fed) == (7, 0, 7)
    if find_driver() is None:
        assert seen.notes[0].startswith("no NVDEC for this video")


@needs_compiler
def test_every_case_runs_and_tells_what_was_promised(tmp_path: Path) -> None:
    """All of the benchmark but for the card: on the simulated one, with real clips, decoders and encoders."""
    gpu, notes = FakeGpu(random.Random(5).randrange), list[str]()
    card, bundle = share(gpu, lambda engine: HostNetwork(gpu, engine)), open_bundle()
    engines = load_engines(bundle, precision="f32", threads=1)
    bench = Bench(card, bundle, engines, scene_frames(200, 360, 2), 0.1, notes.append, warm=1)
    clip, coded = clip_for(bench.images, bench.seconds, tmp_path, None, notes.append)
    assert clip is not None
    assert coded
    found = [
        s
        for name, case in cases(clip, coded, tmp_path).items()
        for s in run_case(name, partial(case, bench), notes.append)
    ]
    found += run_case("long run", lambda: long_run(bench, 8, 60), notes.append)
    assert not any("FAILED" in note for note in notes), notes
    assert (tmp_path / "overlay.mp4").stat().st_size > 1000
    by_name = {(s.case, s.name): s for s in found}
    wrong = [s for s in found if s.name == "frames that came out wrong"]
    assert len(wrong) == 7
    assert not any(sum(s.rounds[0]) for s in wrong)
    told = dict(check_limits(lambda case, name: by_name.get((case, name))))
    assert told["no frame wrong, decoded, throughput: held (0)"] is True
    assert told["throughput at least 500 FPS: NOT HELD " + _figure(told, "throughput at least")] is False
    assert told["GPU busy at least 90 %: not measured"] is None


def _figure(told: dict[str, bool | None], start: str) -> str:
    return next(text for text in told if text.startswith(start)).rpartition("HELD ")[2]


def test_promises_are_held_by_the_figures_that_hold_them() -> None:
    series = {
        ("throughput", "fps"): one_round_series("throughput", "fps", "FPS", [501.0]),
        ("paced at 60 FPS", "latency"): one_round_series("paced at 60 FPS", "latency", "ms", [2.0] * 99 + [4.9]),
        ("long run", "frames"): one_round_series("long run", "frames", "frames", [float(LONG)]),
        ("long run", "host memory"): one_round_series("long run", "host memory", "MB", [900.0, *[1000.0] * 98, 1010.0]),
        ("long run", "GPU memory"): one_round_series(
            "long run", "GPU memory", "MB", [float(i) for i in range(100, 200)]
        ),
    }
    told = dict(check_limits(lambda case, name: series.get((case, name))))
    held = {text.partition(":")[0]: value for text, value in told.items()}
    assert held["throughput at least 500 FPS"]
    assert held["p50 at most 3 ms, paced at 60 FPS"]
    assert held["p99 at most 5 ms, paced at 60 FPS"]
    assert held[f"long run of {LONG} frames"]
    assert held["host memory grows by at most 2 %"]
    assert held["GPU memory grows by at most 2 %"] is False
    assert held["no frame wrong, long run"] is None


def test_failure_of_a_case_is_noted_and_others_continue() -> None:
    def broken() -> Iterator[Series]:
        raise RuntimeError("an illegal memory access\nwas encountered")
        yield

    notes: list[str] = []
    assert run_case("throughput", broken, notes.append) == []
    assert notes == ["throughput: FAILED: RuntimeError: an illegal memory access was encountered"]


@needs_compiler
def test_each_case_has_a_process_that_dies_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cliprl.bench.cuda import measure

    known = cases(None, False, tmp_path)
    monkeypatch.setattr(measure, "cases", lambda *_: {name: known[name] for name in ("throughput", "slow consumer")})
    helpers = Path(gpu_bench.__file__).parent
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(helpers), *sys.path]))
    given = Namespace(
        bundle="small",
        seconds=0.1,
        clip=str(tmp_path / "none.mp4"),
        frames=0,
        minutes=9,
        size=(200, 360),
        only=["throughput", "slow consumer", "unknown"],
    )
    report = measure.Report("NVIDIA H100", given, tmp_path / "result.json")
    held = measure.measure(given, lambda: 600.0, report, lambda: True, open_bench=gpu_bench.open_fake_bench)
    assert held[0]
    assert "no case 'unknown' here: one of throughput, slow consumer" in report.notes
    assert "throughput: FAILED: its process was killed by signal 6" in report.notes
    processes = [note.split()[-1] for note in report.notes if "in process" in note]
    assert len({*processes, str(os.getpid())}) == 3
    result = read_result(tmp_path / "result.json")
    assert result.cases() == ["slow consumer"]
    wrong = result.find("slow consumer", "frames that came out wrong")
    assert wrong is not None
    assert wrong.rounds == ((0.0,),)
    assert result.machine["gpu"] == ["NVIDIA H100"]


def test_networks_without_a_gate_are_built_by_first_process_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []

    class Variant:
        backend = SimpleNamespace(name="fake")

        def build(self) -> dict[str, bytes]:
            built.append("built")
            return {"encoder": b"plan"}

        def load(self, entry: StoredEntry) -> object:
            return entry.parts["encoder"]

    monkeypatch.setattr(case_process, "engine_variants", lambda *_, **__: iter([Variant()]))
    monkeypatch.setattr(case_process, "find_spec", lambda name: None)
    found: list[object] = [case_process.load_networks(open_bundle(), print, tmp_path) for _ in range(3)]
    assert found == [b"plan"] * 3
    assert built == ["built"]


def test_missing_sanitizer_is_noted_and_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cliprl.bench.cuda import gpu_tests

    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert gpu_tests.sanitize(tmp_path / "log", None, 1.0)
    assert "not installed" in (tmp_path / "log").read_text()


def test_long_series_are_thinned() -> None:
    series = one_round_series("long run", "latency", "ms", [float(i) for i in range(100_000)])
    assert len(series.rounds[0]) == 5000
    assert series.note == "every 20th of 100000 samples"


def test_wheels_and_archives_are_laid_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, suffix, form in (("one", "whl", "zip"), ("two", "tar.xz", "xztar")):
        (tmp_path / name / name).mkdir(parents=True)
        (tmp_path / name / name / "__init__.py").write_text("")
        made = shutil.make_archive(str(tmp_path / name), form, tmp_path / name)
        (tmp_path / "given").mkdir(exist_ok=True)
        Path(made).rename(tmp_path / "given" / f"{name}.{suffix}")
    (tmp_path / "given" / "README.txt").write_text("no wheel")
    site = unpack(tmp_path / "given")
    assert sorted(path.name for path in site.iterdir()) == ["one", "two"]
    assert "README.txt is left out" in capsys.readouterr().out


def test_failed_bundle_is_replaced_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cliprl.bench.cuda import inputs as gpu_inputs

    def missing(*_: object) -> None:
        raise ImportError("No module named 'open_clip'")

    monkeypatch.setattr(gpu_inputs, "random_bundle", missing)
    notes: list[str] = []
    assert find_bundle("base", (512, 640), tmp_path, notes.append).manifest.name == "small"
    assert "`small` is measured in place of `base`" in notes[0]
    assert "open_clip" in notes[0]


def test_bundle_of_a_recipe_has_its_form_and_is_untrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("open_clip")

    def write_networks(network: object, refiner: object, text: object, folder: Path) -> None:
        for name in (ENCODER, REFINER):  # an export takes seconds, and has its tests
            shutil.copy(open_bundle().path / name, folder)

    monkeypatch.setattr("cliprl.models.export.onnx_export.write_networks", write_networks)
    notes: list[str] = []
    (tmp_path / "tiny.toml").write_text('name = "tiny"\n' + NETWORK)
    made = find_bundle(str(tmp_path / "tiny.toml"), (64, 96), tmp_path / "made", notes.append)
    assert (made.manifest.height, made.manifest.width, made.manifest.steps) == (64, 96, 3)
    assert "has random weights" in notes[0]
    assert made.embeddings.shape[0] == len(made.manifest.classes)


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_without_the_management_library_there_is_no_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_meter("0" * 8) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert open_meter("0" * 8) is None


def test_meter_reads_load_and_memory_if_the_gpu_reports_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = pytest.importorskip("pynvml")
    monkeypatch.setattr(library, "nvmlInit", lambda: None)
    monkeypatch.setattr(library, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    monkeypatch.setattr(library, "nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(used=2_500_000))
    meter = open_meter("GPU-1")
    assert meter is not None
    assert meter.memory() == 2.5

    def unsupported(handle: object) -> None:
        raise library.NVMLError(library.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(library, "nvmlDeviceGetUtilizationRates", unsupported)
    assert meter.busy() is None


def test_the_clock_does_not_go_below_nothing() -> None:
    assert Stopwatch(0).left() == 0
    assert Stopwatch(1e6).left() > 0


def test_what_fails_in_a_stream_is_raised() -> None:
    class Broken(GpuStream):
        def __init__(self) -> None:
            from cliprl.bench.cuda.runs import OutputFrames

            self.seen = OutputFrames(error=OSError("the card fell off"))

        def run(self, frames: int, seconds: float = 0.0, slow: float = 0.0) -> object:  # type: ignore[override]
            return self.seen

    with pytest.raises(OSError, match="fell off"):
        run_together([Broken()], 1)


def test_samples_are_collected_until_the_end() -> None:
    values = iter([1.0, None, 2.0])
    sampler = Sampler(lambda: next(values, None))
    sampler.start()
    until(lambda: len(sampler.values) >= 2)
    assert sampler.stop() == [1.0, 2.0]


@pytest.mark.skipif(find_driver() is not None, reason="there is an NVIDIA driver")
def test_on_a_bare_machine_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    """All modules that the measurements need are imported without PyAV, OpenVINO and the installed package."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "PYTHONPATH": str(Path(np.__file__).parent.parent)
    }
    script = BARE + (
        "import runpy; sys.argv = ['bench/gpu.py', '--tests-only']; "
        f"gpu = runpy.run_path({str(ROOT / 'bench' / 'gpu.py')!r}); gpu['make_importable'](); "
        "import cliprl.bench.cuda.measure, cliprl.engines.selection.engine_variant, cliprl.pipeline.cuda.factory; "
        "assert 'av' not in sys.modules and 'openvino' not in sys.modules; sys.exit(gpu['main'](['--tests-only']))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "bench/gpu.py: device 'cuda' can't serve here: no NVIDIA driver" in done.stderr
