"""What every engine must show on a GPU. One command on a machine that has one:

FAIL_WITHOUT_CUDA=1 python -m pytest tests/engines/test_engines_gpu.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from onnx_runs import outputs_of  # noqa: E402

from cliprl.bench.commands.engines import copy_bundle  # noqa: E402
from cliprl.bench.cuda.engines import portability  # noqa: E402
from cliprl.engines import Bundle, EngineCache, open_bundle  # noqa: E402
from cliprl.engines.backends.engine import Request  # noqa: E402
from cliprl.engines.backends.registry import backend_names, backend_of, probe  # noqa: E402
from cliprl.engines.bundle.reference_outputs import reference_of  # noqa: E402
from cliprl.engines.onnx.calibration import add_ranges  # noqa: E402
from cliprl.engines.selection.engine_variant import engine_variants  # noqa: E402
from cliprl.engines.selection.load_engines import serve  # noqa: E402

pytestmark = pytest.mark.needs_cuda
RUNS, SETTLING, GROWTH = 10_000, 100, 8 << 20


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("small")


@pytest.fixture(params=backend_names("cuda"))
def backend(request: pytest.FixtureRequest) -> Any:
    """Each backend that can serve here. Torch always must, where there is a GPU."""
    answer = probe(request.param)
    if not answer.ready and request.param != "torch":
        pytest.skip(answer.reason)
    assert answer.ready, answer.reason
    return backend_of(request.param)


@pytest.fixture(scope="module")
def calibrated(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same with ranges for eight bits."""
    copy = copy_bundle(bundle, tmp_path_factory.mktemp("bundle") / "copy")
    return add_ranges(copy, reference_of(copy).images)


def encoder_inputs(bundle: Bundle, classes: int) -> dict[str, Any]:
    manifest = bundle.manifest
    image = np.random.default_rng(1).integers(0, 256, (1, manifest.height, manifest.width, 3), np.uint8)
    return {"image": image, "text": np.resize(bundle.embeddings, (classes, bundle.embeddings.shape[1]))}


def refiner_inputs(bundle: Bundle, classes: int) -> dict[str, Any]:
    given = encoder_inputs(bundle, classes)
    seen = outputs_of(onnx.load(bundle.encoder), given)
    logits = seen["logits"]
    three = {"logits": logits, "base": logits, "prior": np.roll(logits, 3, axis=3)}
    return {"features": seen["features"], **three, "text": given["text"]}


def engine_of(backend: Any, path: Path, precision: str) -> Any:
    request = Request(path, precision, shapes={}, buffers=2)
    return backend.load(backend.build(request), request)


def on_gpu(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: torch.as_tensor(np.ascontiguousarray(value), device="cuda") for name, value in inputs.items()}


def precisions(backend: Any, bundle: Bundle) -> tuple[str, ...]:
    return tuple(backend.precisions(bundle.manifest.hashes))


@pytest.mark.parametrize("precision", ["fp8", "int8"])
def test_eight_bits_match_the_reference(backend: Any, calibrated: Bundle, precision: str) -> None:
    if precision not in precisions(backend, calibrated):
        pytest.skip(backend.lacks(precision, calibrated.manifest.hashes))
    reference = reference_of(calibrated)
    engine = engine_of(backend, calibrated.encoder, precision)
    inputs = {"image": reference.images[:1], "text": calibrated.embeddings}
    runs = [engine.run(inputs)["logits"].cpu().clone() for _ in range(4)]
    assert (runs[0].numpy().argmax(1) == reference.base[:1].argmax(1)).mean() > 0.98
    assert all(torch.equal(run, runs[0]) for run in runs[1:])


def test_eight_pictures_at_a_time_say_what_each_says(backend: Any, bundle: Bundle) -> None:
    images, text = reference_of(bundle).images[:8], bundle.embeddings
    request = Request(bundle.encoder, "f16", shapes={"image": images.shape, "text": text.shape})
    found = backend.load(backend.build(request), request).run({"image": images, "text": text})["logits"]
    expected = reference_of(bundle).base[:8]
    assert (found.cpu().numpy().argmax(1) == expected.argmax(1)).mean() > 0.99


def test_plan_for_other_gpus_runs_or_is_refused_with_reason(bundle: Bundle) -> None:
    answers = portability(bundle)
    print(*answers, sep="\n")
    assert not any("WRONG" in answer for answer in answers)
    assert all(answer.endswith("labels agree") or ": " in answer for answer in answers)


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_networks_match_the_reference_and_replay_equals_first_run(backend: Any, bundle: Bundle, precision: str) -> None:
    for path, inputs, name in (
        (bundle.encoder, encoder_inputs(bundle, 12), "logits"),
        (bundle.refiner, refiner_inputs(bundle, 12), "refined"),
    ):
        engine, expected = engine_of(backend, path, precision), outputs_of(onnx.load(path), inputs)[name]
        runs = [engine.run(inputs)[name].cpu().clone() for _ in range(6)]
        assert (runs[0].numpy().argmax(1) == expected.argmax(1)).mean() > 0.99
        assert all(torch.equal(run, runs[0]) for run in runs[1:])


def test_the_recorded_torch_graph_equals_the_eager_one(bundle: Bundle) -> None:
    from cliprl.engines.backends.torch.graph import Graph

    backend, inputs = backend_of("torch"), on_gpu(encoder_inputs(bundle, 12))
    request = Request(bundle.encoder, "f16")
    blob = backend.build(request)
    replayed: Any = backend.load(blob, request).run(inputs)
    eager = Graph(blob, "cuda").program(inputs).run(inputs)
    for name, value in eager.items():
        assert torch.allclose(value, replayed[name], rtol=1e-2, atol=5e-2)


def test_the_number_of_classes_may_change(backend: Any, bundle: Bundle) -> None:
    engine = engine_of(backend, bundle.encoder, "f16")
    for classes in (12, 2, 64, 12):
        inputs = encoder_inputs(bundle, classes)
        found = engine.run(inputs)["logits"].cpu().numpy()
        expected = outputs_of(onnx.load(bundle.encoder), inputs)["logits"]
        assert found.shape == expected.shape
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


def test_ten_thousand_runs_leak_nothing(backend: Any, bundle: Bundle) -> None:
    engine, inputs = engine_of(backend, bundle.encoder, "f16"), on_gpu(encoder_inputs(bundle, 12))
    for _ in range(SETTLING):
        engine.run(inputs)
    before = torch.cuda.mem_get_info()[0]
    for _ in range(RUNS):
        engine.run(inputs)
    assert abs(torch.cuda.mem_get_info()[0] - before) < GROWTH


def test_a_second_start_takes_what_the_first_has_kept(backend: Any, bundle: Bundle, tmp_path: Path) -> None:
    if backend.name == "torch":
        pytest.skip("torch keeps nothing")
    request = Request(bundle.encoder, "f16", sidecar=tmp_path / "entry")
    blob = backend.build(request)
    backend.load(blob, request).run(encoder_inputs(bundle, 12))
    (kept,) = tmp_path.iterdir()
    size = kept.stat().st_size
    if backend.name == "tensorrt_rtx":
        assert backend.load(blob, request)._kernels.taken
    else:
        backend.build(request)
        assert kept.stat().st_size == size, "something was timed again"


def test_the_gate_accepts_every_engine(backend: Any, calibrated: Bundle, tmp_path: Path) -> None:
    for variant in engine_variants(calibrated, "cuda"):
        if variant.backend.name == backend.name:
            pair = serve(variant, EngineCache(tmp_path / "engines"))
            assert pair.report["faults"] == []
