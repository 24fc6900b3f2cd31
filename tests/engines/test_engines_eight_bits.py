"""int8 and FP8 for GPUs: the graphs that TensorRT builds, and their accuracy, which needs no GPU to be known."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cliprl.engines import Bundle, BundleError, EngineError, UsageError, open_bundle
from cliprl.engines.backends.engine import Request
from cliprl.engines.backends.gpu_discovery import DriverInfo, GpuInfo
from cliprl.engines.backends.registry import compile_engine
from cliprl.engines.backends.tensorrt.backend import TensorRt, make_engine_plan
from cliprl.engines.bundle.bundle import RANGES_FILE
from cliprl.engines.bundle.reference_outputs import Reference, predict, reference_of, refiner_shapes
from cliprl.engines.onnx.calibration import add_ranges, read_ranges
from cliprl.engines.selection.accuracy_gate import judge
from cliprl.engines.selection.engine_variant import EngineVariant, engine_variants

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import helper, numpy_helper  # noqa: E402

from cliprl.engines.backends.tensorrt import backend as tensorrt_backend  # noqa: E402
from cliprl.engines.onnx.dynamic_conv import load_graph  # noqa: E402
from cliprl.engines.onnx.load import EIGHT_BITS, load_graph_as  # noqa: E402
from cliprl.engines.onnx.quantize import LEAST_CHANNELS, TYPES, products, quantize_graph  # noqa: E402

RTX = "tensorrt_rtx"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped bundle, calibrated on half of its pictures: the gate below sees the other half."""
    folder = tmp_path_factory.mktemp("bundle") / "copy"
    shutil.copytree(open_bundle("small").path, folder)
    return add_ranges(open_bundle(folder), reference_of(open_bundle(folder)).images[:4])


class OrtEngine:
    """ONNX Runtime, which takes Q and DQ at their word."""

    backend, precision = "onnxruntime", "as the graph says"

    def __init__(self, model: bytes, bundle: Bundle) -> None:
        plain = ort.SessionOptions()
        plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        self._session = ort.InferenceSession(model, plain, providers=["CPUExecutionProvider"])
        exact = compile_engine(bundle.encoder, precision="f32", shapes={"text": bundle.embeddings.shape})
        self.inputs, self.outputs = exact.inputs, exact.outputs

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        names = list(self.outputs)
        return dict(zip(names, self._session.run(names, dict(inputs)), strict=True))


def kinds(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize(("precision", "agreement"), [("int8", 0.99), ("fp8", 0.97)])
def test_the_built_graph_keeps_the_labels_of_unseen_frames(bundle: Bundle, precision: str, agreement: float) -> None:
    encoder = OrtEngine(load_graph_as(bundle.encoder, precision, RTX), bundle)
    refiner = compile_engine(bundle.refiner, precision="f32", shapes=refiner_shapes(bundle, encoder))
    whole = reference_of(bundle)
    unseen = Reference(whole.images[4:], whole.base[4:], whole.refined[4:], whole.source)
    found = predict(encoder, refiner, unseen.images, bundle)
    compared = judge(*found, unseen, [spec.name for spec in bundle.manifest.classes])
    assert compared[0].agreement >= agreement
    assert precision == "fp8" or compared[0].faults() == []
    assert not np.array_equal(found[0], unseen.base)


@pytest.mark.parametrize("precision", EIGHT_BITS)
def test_gate_refuses_ranges_that_are_far_too_small(bundle: Bundle, precision: str) -> None:
    small = {name: size / 8 for name, size in read_ranges(bundle.path / RANGES_FILE).items()}
    model = quantize_graph(load_graph(bundle.encoder), precision, small)
    encoder, reference = OrtEngine(model.SerializeToString(), bundle), reference_of(bundle)
    one = Reference(reference.images[:1], reference.base[:1], reference.refined[:1], reference.source)
    base = np.concatenate([encoder.run({"image": p[None], "text": bundle.embeddings})["logits"] for p in one.images])
    assert judge(base, base, one, [spec.name for spec in bundle.manifest.classes])[0].faults()


@pytest.mark.parametrize("precision", EIGHT_BITS)
def test_every_wide_product_is_in_eight_bits_and_nothing_else(bundle: Bundle, precision: str) -> None:
    model, exact = load_graph(bundle.encoder), load_graph(bundle.encoder)
    wanted = products(exact)
    every = products(exact, grouped=True, least=1)
    assert 10 < len(wanted) < len(every)
    quantize_graph(model, precision, read_ranges(bundle.path / RANGES_FILE))
    onnx.checker.check_model(model, full_check=True)
    assert kinds(model).count("QuantizeLinear") == len({p.activation for p in wanted.values()})
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, product in every.items():
        node = next(n for n in model.graph.node if n.output[0] == name)
        if name in wanted:
            assert stored[f"{product.weights}/8"].data_type == TYPES[precision][0]
            assert product.weights not in stored
            assert min(product.values.shape[:2]) >= LEAST_CHANNELS
        else:
            assert list(node.input[:2]) == [product.activation, product.weights]
    assert [(v.name, v.type) for v in model.graph.input] == [(v.name, v.type) for v in exact.graph.input]
    assert [(v.name, v.type) for v in model.graph.output] == [(v.name, v.type) for v in exact.graph.output]
    assert model.ByteSize() < 0.6 * exact.ByteSize()


def product_of(kind: str, weights: np.ndarray[Any, Any], **settings: int) -> Any:
    """A model of one product with stored weights, its input "x" of any shape."""
    info = [helper.make_tensor_value_info(name, 1, None) for name in ("x", "y")]
    node = helper.make_node(kind, ["x", "w"], ["y"], **settings)
    graph = helper.make_graph([node], "g", info[:1], info[1:], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model: Any, x: Any) -> Any:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@settings(max_examples=60, deadline=None)
@given(
    weights=arrays.arrays(np.float32, (40, 34), elements=st.floats(-4, 4, width=32)),
    scale=st.sampled_from([1e-6, 1e-3, 1.0, 1e3]),
    kind=st.sampled_from([("Gemm", True), ("Gemm", False), ("MatMul", False), ("Conv", True)]),
    precision=st.sampled_from(EIGHT_BITS),
)
def test_error_of_stored_weights_is_that_of_eight_bits(
    weights: Any, scale: float, kind: tuple[str, bool], precision: str
) -> None:
    name, turned = kind
    weights = weights * np.float32(scale)
    given = weights[..., None, None] if name == "Conv" else weights
    model = product_of(name, given, **({"transB": 1} if name == "Gemm" and turned else {}))
    quantize_graph(model, precision, {"x": 1.0})
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    outputs = 0 if turned else 1
    steps = np.expand_dims(stored["w/scale"], 1 - outputs)
    found = stored["w/8"].astype(np.float32).reshape(weights.shape) * steps
    # int8 rounds to half a step; FP8 to half of a sixteenth, and below 2^-6 steps to half of 2^-9. The scale is in half too.
    bound = 0.5 * steps if precision == "int8" else np.maximum(np.abs(weights) / 16, steps * 2.0**-10)
    assert (np.abs(found - weights) <= bound * 1.01 + 2e-3 * np.abs(weights) + 1e-30).all()


@pytest.mark.parametrize("precision", EIGHT_BITS)
def test_a_shared_activation_is_quantised_once(precision: str) -> None:
    rng, names = np.random.default_rng(0), ("a", "b")
    tensors = [numpy_helper.from_array(rng.normal(size=(32, 32)).astype(np.float32), name) for name in names]
    infos = [helper.make_tensor_value_info(name, 1, [1, 32]) for name in ("x", "ya", "yb")]
    nodes = [helper.make_node("MatMul", ["x", name], [f"y{name}"]) for name in names]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    quantize_graph(model, precision, {"x": 3.0})
    assert kinds(model).count("QuantizeLinear") == 1
    assert kinds(model).count("DequantizeLinear") == 3


def test_what_was_not_calibrated_or_is_garbled_is_told(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"'x' was not calibrated.*quantize"):
        quantize_graph(product_of("MatMul", np.ones((32, 32), np.float32)), "fp8", {})
    for text in (
        "",
        "[]",
        '{"ranges": 3}',
        '{"ranges": {"x": "wide"}}',
        '{"ranges": {"x": NaN}}',
        '{"ranges": {"x": -1}}',
    ):
        (tmp_path / RANGES_FILE).write_text(text)
        with pytest.raises(BundleError, match=RANGES_FILE):
            read_ranges(tmp_path / RANGES_FILE)
    with pytest.raises(BundleError, match=RANGES_FILE):
        read_ranges(tmp_path / "none" / RANGES_FILE)
    with pytest.raises(UsageError, match="at least 4"):
        add_ranges(bundle, reference_of(bundle).images[:2])


def test_ranges_are_what_the_activations_reach(bundle: Bundle) -> None:
    ranges = read_ranges(bundle.path / RANGES_FILE)
    model = load_graph(bundle.encoder)
    names = [p.activation for p in products(model, grouped=True, least=1).values()]
    assert set(ranges) == set(names)
    some = [name for name in names if name not in {o.name for o in model.graph.output}][::9]
    model.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in some)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    largest = dict.fromkeys(some, 0.0)
    for image in reference_of(bundle).images[:4]:
        for name, value in zip(some, session.run(some, {"image": image[None], "text": bundle.embeddings}), strict=True):
            largest[name] = max(largest[name], float(np.abs(value).max()))
    for name in some:
        assert ranges[name] == pytest.approx(largest[name], rel=1e-3)


def with_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> TensorRt:
    driver = DriverInfo("580.95", (13, 0), (GpuInfo("NVIDIA GPU", capability),))
    monkeypatch.setattr(tensorrt_backend, "find_driver", lambda: driver)
    return TensorRt(RTX)


@pytest.mark.parametrize(
    ("capability", "files", "expected"),
    [
        ((8, 6), {RANGES_FILE}, ("f16", "int8", "f32")),
        ((8, 9), {RANGES_FILE}, ("f16", "fp8", "int8", "f32")),
        ((9, 0), {RANGES_FILE}, ("f16", "fp8", "int8", "f32")),
        ((12, 0), {RANGES_FILE}, ("f16", "fp8", "int8", "f32")),
        ((8, 9), set(), ("f16", "f32")),
    ],
)
def test_a_gpu_has_what_its_generation_and_the_bundle_allow(
    capability: tuple[int, int], files: Collection[str], expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = with_gpu(monkeypatch, capability)
    assert backend.precisions(files) == expected
    for precision in {"f16", "fp8", "int8", "f32", "bf16"} - set(expected):
        reason = backend.lacks(precision, files)
        assert precision in reason
        assert any(word in reason for word in ("sm89", "quantize", "f16"))


def served(bundle: Bundle, precision: str, backend: TensorRt, monkeypatch: pytest.MonkeyPatch) -> list[EngineVariant]:
    from cliprl.engines.selection import engine_variant

    monkeypatch.setattr(engine_variant, "ready_backends", lambda device, log: [backend])
    return list(engine_variants(bundle, "cuda", precision))


def test_what_cannot_be_had_is_one_line_with_the_reason(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"fp8.*cuda.*sm86 has no fp8.*give auto, f16, int8, f32"):
        served(bundle, "fp8", with_gpu(monkeypatch, (8, 6)), monkeypatch)
    with pytest.raises(UsageError, match=r"int8.*needs ranges.*cliprl-engine quantize.*give auto, f16, f32"):
        served(open_bundle("small"), "int8", with_gpu(monkeypatch, (8, 6)), monkeypatch)
    monkeypatch.undo()
    for precision in ("f16", "fp8", "f12"):
        with pytest.raises(UsageError, match=rf"'{precision}' can't be had on cpu.*f32") as caught:
            list(engine_variants(bundle, "cpu", precision))
        assert "\n" not in str(caught.value)


def test_an_eight_bit_engine_is_made_of_the_ranges_too(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(RTX)
    backend = with_gpu(monkeypatch, (8, 9))
    (fp8,), (half,) = (served(bundle, precision, backend, monkeypatch) for precision in ("fp8", "f16"))
    assert bundle.manifest.hashes[RANGES_FILE] in fp8.fields()["encoder"]
    assert bundle.manifest.hashes[RANGES_FILE] not in half.fields()["encoder"]
    assert fp8.encoder_request().precision == "fp8"
    asked: list[Request] = []
    monkeypatch.setattr(backend, "build", lambda request: asked.append(request) or b"plan")
    exact = compile_engine(bundle.encoder, precision="f32", shapes={"text": bundle.embeddings.shape})
    monkeypatch.setattr(backend, "load", lambda blob, request: exact)
    fp8.build()
    assert [(request.onnx.name, request.precision) for request in asked] == [
        ("encoder.onnx", "fp8"),
        ("refiner.onnx", "f16"),
    ]


@cache
def half_plan(encoder: Path, target: str) -> Any:
    return make_engine_plan(RTX, encoder, "f16", {}, target)


@pytest.mark.parametrize(
    ("precision", "target"),
    [("int8", "sm75"), ("int8", "sm120"), ("fp8", "sm89")],
)
def test_a_plan_is_built_ahead_of_time(bundle: Bundle, precision: str, target: str) -> None:
    pytest.importorskip(RTX)
    plan = make_engine_plan(RTX, bundle.encoder, precision, {}, target)
    half = half_plan(bundle.encoder, target)
    assert (plan.inputs, plan.outputs, plan.profile) == (half.inputs, half.outputs, half.profile)
    assert plan.data != half.data
    for name in plan.inputs | plan.outputs:
        assert name.encode() in plan.data


@pytest.mark.parametrize("target", ["sm75", "sm86"])
def test_fp8_is_refused_for_a_gpu_without_it(bundle: Bundle, target: str) -> None:
    with pytest.raises(UsageError, match=rf"{target} has no fp8, which begins with sm89"):
        make_engine_plan(RTX, bundle.encoder, "fp8", {}, target)
