"""Torch runs a bundle's ONNX files and says what the reference says. What a GPU must show is in test_engines_gpu.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from lock_state import is_locked  # noqa: E402
from onnx_runs import outputs_of, run_by_torch  # noqa: E402

from cliprl.engines import Bundle, EngineError, open_bundle  # noqa: E402
from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK  # noqa: E402
from cliprl.engines.backends.engine import Request  # noqa: E402
from cliprl.engines.backends.gpu_discovery import DriverInfo, GpuInfo  # noqa: E402
from cliprl.engines.backends.registry import backend_of  # noqa: E402
from cliprl.engines.backends.torch import engine as engine_module  # noqa: E402
from cliprl.engines.backends.torch.backend import why_not  # noqa: E402
from cliprl.engines.backends.torch.engine import TorchEngine  # noqa: E402
from cliprl.engines.backends.torch.graph import Graph  # noqa: E402
from cliprl.engines.onnx.load import load_graph_as  # noqa: E402


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("small")


def sample(bundle: Bundle, classes: int) -> dict[str, Any]:
    manifest = bundle.manifest
    image = np.random.default_rng(1).integers(0, 256, (1, manifest.height, manifest.width, 3), np.uint8)
    return {"image": image, "text": np.resize(bundle.embeddings, (classes, bundle.embeddings.shape[1]))}


def state_of(bundle: Bundle, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What the refiner sees after the encoder, with another picture's prior."""
    seen = outputs_of(onnx.load(bundle.encoder), inputs)
    logits = seen["logits"]
    three = {"logits": logits, "base": logits, "prior": np.roll(logits, 3, axis=3)}
    return {"features": seen["features"], **three, "text": inputs["text"]}


def test_shipped_networks_match_the_reference_for_any_number_of_classes(bundle: Bundle) -> None:
    encoder, refiner = (
        TorchEngine(Graph(load_graph_as(path, "f32", "torch"), "cpu"), "f32", 2)
        for path in (bundle.encoder, bundle.refiner)
    )
    assert (encoder.inputs["image"].dtype, encoder.inputs["text"].shape[0]) == ("uint8", -1)
    for classes in (12, 2, 64, 12):
        inputs = sample(bundle, classes)
        state = state_of(bundle, inputs)
        found = encoder.run(inputs)
        for name in ("features", "logits"):
            np.testing.assert_allclose(found[name], state[name], atol=1e-3)
        refined = refiner.run(state)
        expected = outputs_of(onnx.load(bundle.refiner), state)
        assert (refined["refined"].numpy().argmax(1) == expected["refined"].argmax(1)).mean() > 0.999
        assert float(refined["moved"]) == pytest.approx(float(expected["moved"]), abs=1e-3)


def test_outputs_stay_valid_for_as_many_runs_as_asked_for(bundle: Bundle) -> None:
    engine = TorchEngine(Graph(load_graph_as(bundle.refiner, "f32", "torch"), "cpu"), "f32", 3)
    state = state_of(bundle, sample(bundle, 2))
    first = engine.run(state)["refined"]
    kept = first.clone()
    other = state | {"logits": -state["logits"]}
    for _ in range(2):
        engine.run(other)
        assert torch.equal(first, kept)
    engine.run(other)
    assert not torch.equal(first, kept)


def stub_engine(device: str = "cpu") -> tuple[TorchEngine, list[str]]:
    """An engine of a graph that returns its input, and what is asked of the graph."""
    calls: list[str] = []

    def program(given: Any) -> Any:
        calls.append(f"program {len(given['x'])}")
        return SimpleNamespace(run=lambda inputs: {"y": inputs["x"]})

    graph: Any = SimpleNamespace(inputs={"x": None}, outputs={"y": None}, device=device, program=program)
    return TorchEngine(graph, "f32", 1), calls


def test_shapes_not_used_for_longest_are_recorded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "MAX_CUDA_GRAPHS", 2)
    engine, calls = stub_engine()
    for size in (1, 2, 1, 3, 1, 2):
        engine.run({"x": np.zeros(size, np.float32)})
    assert calls == [f"program {size}" for size in (1, 2, 3, 2)]


def test_a_failed_capture_leaves_an_engine_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[bool] = []

    def fail(*_: Any) -> None:
        locked.append(is_locked(CAPTURE_LOCK))
        raise RuntimeError("operation failed due to a previous error during capture")

    engine, calls = stub_engine()
    engine._on_gpu, engine._stream = True, SimpleNamespace(synchronize=lambda: None)
    monkeypatch.setattr(engine_module, "capture_graph", fail)
    for value in (1.0, 2.0):
        assert engine._run({"x": torch.full((2,), value)})["y"].tolist() == [value] * 2
    assert (calls, locked) == (["program 2"], [True])  # the first run sets up lazily, as a load does


def test_runs_use_no_stream_of_the_default_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """In which a stream may be another library's, whose work a capture would record."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda priority=0: SimpleNamespace(priority=priority))
    assert stub_engine("cuda")[0]._stream.priority < 0


def test_half_precision_is_close(bundle: Bundle) -> None:
    state = state_of(bundle, sample(bundle, 12))
    half = TorchEngine(Graph(load_graph_as(bundle.refiner, "f16", "torch"), "cpu"), "f16", 1)
    found, expected = half.run(state)["refined"], outputs_of(onnx.load(bundle.refiner), state)["refined"]
    assert found.dtype == torch.float32
    assert (found.numpy().argmax(1) == expected.argmax(1)).mean() > 0.99


def test_a_vision_transformer_runs_too(tmp_path: Path) -> None:
    """What `base` and `large` are made of: the exporter's graph of timm's ViT, held to torch itself."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    tower = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=(64, 80), num_classes=5).eval()
    image = torch.rand(1, 3, 64, 80)
    path = tmp_path / "vit.onnx"
    torch.onnx.export(tower, (image,), str(path), dynamo=True, opset_version=18, external_data=False, verbose=False)
    model = onnx.load(path)
    (name,) = (value.name for value in model.graph.input)
    found = run_by_torch(model, {name: image.numpy()})
    np.testing.assert_allclose(next(iter(found.values())), tower(image).detach(), rtol=1e-3, atol=1e-4)


AMPERE = DriverInfo("580.95", (13, 0), (GpuInfo("NVIDIA RTX A6000", (8, 6)),))
BUILT = ["sm_75", "sm_80", "sm_90", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("driver", "state", "built", "has_onnx", "words"),
    [
        (None, ("2.15", True), BUILT, True, ["no NVIDIA driver", "--device cpu"]),
        (DriverInfo("580.95", (13, 0), ()), ("2.15", True), BUILT, True, ["580.95", "--gpus all"]),
        (AMPERE, ("", False), BUILT, True, ["torch", "cliprl[gpu]"]),
        (AMPERE, ("2.15+cpu", False), BUILT, True, ["2.15+cpu", "CUDA build"]),
        (AMPERE, ("2.15", True), ["sm_90", "compute_120"], True, ["A6000", "sm86", "2.15"]),
        (AMPERE, ("2.15", True), BUILT, False, ["onnx", "cliprl[gpu]"]),
        (AMPERE, ("2.15", True), BUILT, True, []),
        (DriverInfo("580", (13, 0), (GpuInfo("H100", (9, 0)),)), ("2.15", True), ["sm_90a"], True, []),
        (DriverInfo("580", (13, 0), (GpuInfo("B300", (13, 0)),)), ("2.15", True), BUILT, True, []),
    ],
)
def test_the_probe_says_what_to_do(
    driver: DriverInfo | None, state: tuple[str, bool], built: list[str], has_onnx: bool, words: list[str]
) -> None:
    reason = why_not(driver, lambda: state, lambda: built, has_onnx)
    assert bool(reason) == bool(words)
    for word in words:
        assert word in reason


def test_what_is_built_is_the_graph_in_its_precision(bundle: Bundle, tmp_path: Path) -> None:
    backend = backend_of("torch")
    sizes = [len(backend.build(Request(bundle.encoder, precision))) for precision in ("f32", "f16")]
    assert sizes[1] < 0.55 * sizes[0]
    with pytest.raises(EngineError, match=r"f8.*f16"):
        backend.build(Request(bundle.encoder, "f8"))
    (tmp_path / "no.onnx").write_text("no network")
    with pytest.raises(EngineError, match=r"no\.onnx"):
        backend.build(Request(tmp_path / "no.onnx", "f32"))
