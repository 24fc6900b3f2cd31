"""Which precision serves is measured on the machine at hand, among those that the accuracy gate accepts."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine
from virtual_time import VirtualClock

from cliprl.engines import Bundle, EngineCache, add_reference, load_engines, open_bundle
from cliprl.engines.backends.engine import Engine, Request, TensorSpec
from cliprl.engines.backends.openvino.backend import OpenVino
from cliprl.engines.bundle.reference_outputs import drawn_images
from cliprl.engines.selection import engine_variant
from cliprl.engines.selection import load_engines as loading
from cliprl.engines.selection.load_engines import ranked, run_speed_test

# The race is timed by this clock: a neighbour on the machine decides nothing.
CLOCK = VirtualClock()


class Changed(FakeEngine):
    """An engine that takes its time, or says nonsense."""

    def __init__(self, engine: Engine, delay: float, wrong: bool) -> None:
        super().__init__(engine)
        self.engine, self.delay, self.wrong = engine, delay, wrong

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        CLOCK.sleep(0.001 + self.delay)
        outputs = self.engine.run(inputs)
        return {k: np.roll(v, 1, axis=1) if self.wrong and np.ndim(v) == 4 else v for k, v in outputs.items()}


class Three(OpenVino):
    """OpenVINO in 32 bits under three names: `slow` ones take 30 ms longer, `wrong` ones are not to be trusted."""

    def __init__(self, slow: Collection[str] = (), wrong: Collection[str] = ()) -> None:
        self.slow, self.wrong, self.loaded = slow, wrong, list[str]()

    def precisions(self, files: Collection[str] = ()) -> tuple[str, ...]:
        return ("one", "two", "f32")

    def lacks(self, precision: str, files: Collection[str]) -> str:
        return "" if precision in self.precisions() else "unknown"

    def sources(self, precision: str) -> tuple[str, ...]:
        return ("encoder.onnx",)

    def build(self, request: Request) -> bytes:
        return super().build(Request(request.onnx, "f32", request.threads, request.shapes, request.buffers))

    def load(self, blob: bytes, request: Request) -> Any:
        self.loaded.append(request.precision)
        engine = super().load(blob, Request(request.onnx, "f32", request.threads, request.shapes, request.buffers))
        engine.precision = request.precision
        return Changed(engine, 0.03 if request.precision in self.slow else 0.0, request.precision in self.wrong)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped networks, held to one drawn picture."""
    folder = tmp_path_factory.mktemp("bundle") / "copy"
    shutil.copytree(open_bundle("small").path, folder)
    manifest = open_bundle(folder).manifest
    return add_reference(open_bundle(folder), drawn_images(manifest.height, manifest.width)[:1])


def chosen(backend: Three, bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> str:
    monkeypatch.setattr(engine_variant, "ready_backends", lambda device, log: [backend])
    monkeypatch.setattr(loading, "time", CLOCK)
    return load_engines(bundle, threads=1, cache=EngineCache(folder), log=said.append).precision


def test_the_fastest_serves_and_the_race_is_run_once(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, said = Three(slow=["one"]), list[str]()
    assert chosen(backend, bundle, tmp_path, monkeypatch, said) == "two"
    assert any("two serves" in text and "one " in text for text in said)
    backend.loaded.clear()
    said.clear()
    assert chosen(backend, bundle, tmp_path, monkeypatch, said) == "two"
    assert set(backend.loaded) == {"two"}
    assert said == []


def test_where_nothing_can_be_kept_each_precision_is_compiled_once(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    said, backend = list[str](), Three(slow=["one"])
    assert chosen(backend, bundle, tmp_path / "file" / "engines", monkeypatch, said) == "two"
    assert sorted(backend.loaded) == ["one", "one", "two", "two"]  # the encoder and the refiner of each, once
    assert sorted(text.split(":")[0].split()[-1] for text in said if "compiling small" in text) == ["one", "two"]


def test_the_fastest_does_not_serve_where_the_gate_refuses_it(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = list[str]()
    assert chosen(Three(slow=["one"], wrong=["two"]), bundle, tmp_path, monkeypatch, said) == "one"
    assert any("two is refused" in text for text in said)


def test_full_precision_serves_where_all_others_are_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = list[str]()
    assert chosen(Three(wrong=["one", "two"]), bundle, tmp_path, monkeypatch, said) == "f32"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"bf16": 8.0, "int8": 7.0}, ["int8", "bf16"]),
        ({"bf16": 8.0, "int8": 7.8}, ["bf16", "int8"]),
        ({"bf16": 8.0, "int8": 9.0}, ["bf16", "int8"]),
        ({"f16": 2.0, "fp8": 1.5, "int8": 1.4}, ["int8", "fp8", "f16"]),
        ({"f16": 2.0, "fp8": 1.95, "int8": 1.96}, ["f16", "fp8", "int8"]),
        ({"bf16": 0.0}, ["bf16"]),
        ({}, []),
    ],
)
def test_accuracy_is_given_away_only_for_speed(times: dict[str, float], expected: list[str]) -> None:
    assert ranked(times) == expected


class Timed(FakeEngine):
    """An engine whose runs take the given times, the last of which repeats."""

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.runs = seconds, 0
        self.inputs = {"image": TensorSpec("uint8", (1, 8, 8, 3))}

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        CLOCK.sleep(self.seconds[min(self.runs, len(self.seconds) - 1)])
        self.runs += 1
        return {}


@pytest.mark.parametrize(
    ("seconds", "runs"), [([0.008], 10), ([0.009] * 8 + [0.008], 15), ([0.1 - i / 1000 for i in range(60)], 33)]
)
def test_the_race_ends_when_no_engine_gets_faster(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, seconds: list[float], runs: int
) -> None:
    monkeypatch.setattr(loading, "time", CLOCK)
    engines: dict[str, Any] = {"steady": Timed(0.01), "other": Timed(*seconds)}
    times = run_speed_test(engines, bundle)
    assert [engine.runs for engine in engines.values()] == [runs, runs]
    assert times["other"] == pytest.approx(1000 * min(seconds[:runs]))
