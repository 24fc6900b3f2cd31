"""Networks become TensorRT engines without a GPU. What a GPU must show is in test_engines_gpu.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliprl.engines import Bundle, EngineError, UsageError, compile_engine, open_bundle
from cliprl.engines.backends.engine import TensorSpec
from cliprl.engines.backends.gpu_discovery import DriverInfo, GpuInfo
from cliprl.engines.backends.registry import backend_names, probe
from cliprl.engines.backends.tensorrt.backend import make_engine_plan
from cliprl.engines.backends.tensorrt.probe import why_not, why_not_torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_runs import outputs_of  # noqa: E402

from cliprl.engines.onnx.dynamic_conv import load_graph, rewrite_computed_kernels  # noqa: E402
from cliprl.engines.onnx.fp16 import to_fp16  # noqa: E402
from cliprl.engines.onnx.load import set_batch  # noqa: E402

RTX = "tensorrt_rtx"
CLASSES = (2, 12, 64)
AMPERE = DriverInfo("580.95", (13, 0), (GpuInfo("NVIDIA RTX A6000", (8, 6)),))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("small")


def grid(bundle: Bundle, classes: int) -> tuple[int, ...]:
    manifest = bundle.manifest
    return (1, classes, manifest.height // manifest.stride, manifest.width // manifest.stride)


def tensors(bundle: Bundle, network: str) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """What a network of the bundle takes and gives; the number of classes is open."""
    manifest = bundle.manifest
    features = next(o for o in onnx.load(bundle.encoder).graph.output if o.name == "features")
    deep = TensorSpec("float32", tuple(d.dim_value or 1 for d in features.type.tensor_type.shape.dim))  # one image
    scores = TensorSpec("float32", grid(bundle, -1))
    text = TensorSpec("float32", (-1, bundle.embeddings.shape[1]))
    if network == "encoder":
        image = TensorSpec("uint8", (1, manifest.height, manifest.width, 3))
        return {"image": image, "text": text}, {"features": deep, "logits": scores}
    inputs = {"features": deep, "logits": scores, "base": scores, "prior": scores, "text": text}
    return inputs, {"refined": scores, "moved": TensorSpec("float32", ())}


def path_of(bundle: Bundle, network: str) -> Path:
    return bundle.encoder if network == "encoder" else bundle.refiner


@pytest.mark.parametrize("precision", ["f32", "f16"])
@pytest.mark.parametrize(
    ("network", "target"),
    [*(("encoder", target) for target in ("sm75", "sm86", "sm89", "sm120")), ("refiner", "sm75"), ("refiner", "sm120")],
)
def test_a_plan_is_built_ahead_of_time(bundle: Bundle, network: str, target: str, precision: str) -> None:
    pytest.importorskip(RTX)
    plan = make_engine_plan(RTX, path_of(bundle, network), precision, {}, target)
    inputs, outputs = tensors(bundle, network)
    assert plan.inputs == inputs
    assert plan.outputs == outputs
    opened = {name for name, spec in inputs.items() if -1 in spec.shape}
    assert set(plan.profile) == opened
    for name in opened:
        for shape, classes in zip(plan.profile[name], CLASSES, strict=True):
            assert shape == tuple(classes if size == -1 else size for size in inputs[name].shape)
    assert len(plan.data) > path_of(bundle, network).stat().st_size // 3
    for name in inputs | outputs:
        assert name.encode() in plan.data


def test_a_plan_is_static_for_the_classes_asked_for(bundle: Bundle) -> None:
    pytest.importorskip(RTX)
    shape = (7, bundle.embeddings.shape[1])
    fixed = make_engine_plan(RTX, bundle.encoder, "f16", {"text": shape}, "sm86")
    assert not fixed.profile
    assert fixed.inputs["text"].shape == shape
    left_open = make_engine_plan(RTX, bundle.encoder, "f16", {"text": (-1, shape[1])}, "sm86").profile["text"]
    assert [size for size, _ in left_open] == list(CLASSES)
    with pytest.raises(UsageError, match="65"):
        make_engine_plan(RTX, bundle.encoder, "f16", {"text": (65, shape[1])}, "sm86")


def test_refusals_name_value_and_rule(bundle: Bundle, tmp_path: Path) -> None:
    pytest.importorskip(RTX)
    with pytest.raises(UsageError, match=r"sm99.*sm86"):
        make_engine_plan(RTX, bundle.refiner, "f16", {}, "sm99")
    with pytest.raises(UsageError, match=r"f8.*f16"):
        make_engine_plan(RTX, bundle.refiner, "f8", {}, "sm86")
    text = tmp_path / "text.onnx"
    text.write_text("no network")
    with pytest.raises(EngineError, match=r"text\.onnx"):
        make_engine_plan(RTX, text, "f16", {}, "sm86")
    model = onnx.load(bundle.encoder)
    for dim in [d for v in [*model.graph.input, *model.graph.output] for d in v.type.tensor_type.shape.dim]:
        if dim.dim_param:
            dim.dim_param = "things"
    onnx.save(model, tmp_path / "open.onnx")
    with pytest.raises(EngineError, match=r"text.*things.*classes"):
        make_engine_plan(RTX, tmp_path / "open.onnx", "f32", {}, "sm86")


def sample(bundle: Bundle, classes: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    manifest = bundle.manifest
    image = rng.integers(0, 256, (1, manifest.height, manifest.width, 3), np.uint8)
    return {"image": image, "text": np.resize(bundle.embeddings, (classes, bundle.embeddings.shape[1]))}


@pytest.mark.parametrize("classes", [2, 12])
def test_a_computed_kernel_turned_inside_out_gives_the_same(bundle: Bundle, classes: int) -> None:
    model, inputs = load_graph(bundle.encoder), sample(bundle, classes)
    expected = outputs_of(model, inputs)
    set_batch(model, 1)
    rewrite_computed_kernels(model)
    found = outputs_of(model, inputs)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 3])
def test_several_pictures_at_a_time_give_what_each_gives(bundle: Bundle, batch: int) -> None:
    inputs = sample(bundle, 7)
    images = np.random.default_rng(1).integers(0, 256, (batch, *inputs["image"].shape[1:]), np.uint8)
    alone = [outputs_of(load_graph(bundle.encoder), inputs | {"image": image[None]}) for image in images]
    model = load_graph(bundle.encoder)
    set_batch(model, batch)
    rewrite_computed_kernels(model)
    onnx.checker.check_model(model, full_check=True)
    for name, values in outputs_of(model, inputs | {"image": images}).items():
        np.testing.assert_allclose(values, np.concatenate([each[name] for each in alone]), atol=2e-4)


@pytest.mark.parametrize(("target", "precision"), [("sm75", "f16"), ("sm89", "f32")])
def test_a_plan_of_several_pictures_is_built_ahead_of_time(bundle: Bundle, target: str, precision: str) -> None:
    pytest.importorskip(RTX)
    single = make_engine_plan(RTX, bundle.encoder, precision, {}, target)
    image = single.inputs["image"].shape
    plan = make_engine_plan(RTX, bundle.encoder, precision, {"image": (8, *image[1:])}, target)
    assert plan.inputs["image"].shape == (8, *image[1:])
    assert plan.profile == single.profile
    for name, spec in plan.outputs.items():
        assert spec.shape == (8, *single.outputs[name].shape[1:])


def test_a_graph_that_is_made_for_one_picture_says_so() -> None:
    helper = onnx.helper
    infos = [helper.make_tensor_value_info(name, 1, [1, 4]) for name in ("image", "y")]
    sizes = onnx.numpy_helper.from_array(np.array([1, 2, 2], np.int64), "sizes")
    infos[1].type.tensor_type.shape.dim.add().dim_value = 2
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["image", "sizes"], ["y"])], "g", infos[:1], infos[1:], [sizes]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    set_batch(model, 1)
    with pytest.raises(EngineError, match=r"can't take 8 images.*export it again"):
        set_batch(model, 8)


def test_half_precision_keeps_the_face_and_the_labels(bundle: Bundle) -> None:
    model, inputs = load_graph(bundle.encoder), sample(bundle, 12)
    half = to_fp16(load_graph(bundle.encoder))
    assert [(v.name, v.type) for v in half.graph.input] == [(v.name, v.type) for v in model.graph.input]
    assert [(v.name, v.type) for v in half.graph.output] == [(v.name, v.type) for v in model.graph.output]
    assert half.ByteSize() < 0.55 * model.ByteSize()
    expected, found = outputs_of(model, inputs)["logits"], outputs_of(half, inputs)["logits"]
    assert found.dtype == np.float32
    assert not np.array_equal(found, expected)
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.99


@pytest.mark.parametrize(("value", "kept"), [(1e-8, True), (1e5, True), (0.0, False), (1.5, False), (np.inf, False)])
def test_constant_out_of_half_range_keeps_its_operator_in_full(value: float, kept: bool) -> None:
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    info = [helper.make_tensor_value_info(name, 1, [2]) for name in ("x", "y")]
    constant = numpy_helper.from_array(np.array(value, np.float32), "c")
    graph = helper.make_graph([helper.make_node("Add", ["x", "c"], ["y"])], "g", info[:1], info[1:], [constant])
    half = to_fp16(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    assert [t.data_type for t in half.graph.initializer] == [1 if kept else 10]


@pytest.mark.parametrize(
    ("package", "version", "cuda", "driver", "words"),
    [
        ("tensorrt", "10.3.0", 12, AMPERE, ["10.12", "pip install"]),
        ("tensorrt", "11.4.0", 13, None, ["no NVIDIA driver", "--device cpu"]),
        ("tensorrt_rtx", "1.7.1", 13, None, ["no NVIDIA driver", "--target sm86"]),
        ("tensorrt", "11.4.0", 13, DriverInfo("535.104", (12, 2), AMPERE.gpus), ["535.104", "580", "tensorrt-cu12"]),
        ("tensorrt", "11.4.0", 12, DriverInfo("470.10", (11, 4), AMPERE.gpus), ["470.10", "525", "update the driver"]),
        ("tensorrt", "11.4.0", 13, DriverInfo("580.95", (13, 0), ()), ["580.95", "no GPU", "--gpus all"]),
        (
            "tensorrt",
            "11.4.0",
            12,
            DriverInfo("535.1", (12, 2), (GpuInfo("Tesla V100", (7, 0)),)),
            ["V100", "sm70", "sm75"],
        ),
        ("tensorrt", "11.4.0", 13, AMPERE, []),
        ("tensorrt_rtx", "1.7.1", 0, DriverInfo("", (13, 0), AMPERE.gpus), []),
    ],
)
def test_the_probe_says_what_to_do(
    package: str, version: str, cuda: int, driver: DriverInfo | None, words: list[str]
) -> None:
    reason = why_not(package, version, cuda, driver)
    assert bool(reason) == bool(words)
    for word in words:
        assert word in reason


@pytest.mark.parametrize(
    ("state", "word"), [(("", False), "cliprl[gpu]"), (("2.15+cpu", False), "2.15+cpu"), (("2.15", True), "")]
)
def test_torch_must_see_the_gpu(state: tuple[str, bool], word: str) -> None:
    reason = why_not_torch(lambda: state)
    assert word in reason
    assert bool(reason) == bool(word)


def ready() -> list[str]:
    return [name for name in backend_names("cuda") if probe(name).ready]


def test_without_a_gpu_cuda_is_refused_with_every_reason(bundle: Bundle) -> None:
    if ready():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineError) as caught:
        compile_engine(bundle.refiner, device="cuda")
    assert "\n" not in str(caught.value)
    for word in ("tensorrt:", "tensorrt_rtx:", "cuda"):
        assert word in str(caught.value)


def test_tensorrt_for_rtx_has_all_parts_of_an_execution_context() -> None:
    """None can be made without a GPU: at least the names are there, and are meant for one another."""
    rtx = pytest.importorskip(RTX)
    assert hasattr(rtx.ICudaEngine, "create_runtime_config")
    assert hasattr(rtx.IRuntimeConfig, "dynamic_shapes_kernel_specialization_strategy")
    assert "IRuntimeCache" in rtx.IRuntimeConfig.create_runtime_cache.__doc__
    assert "IRuntimeCache" in rtx.IRuntimeConfig.set_runtime_cache.__doc__
    assert "-> bool" in rtx.IRuntimeCache.deserialize.__doc__
    assert "IHostMemory" in rtx.IRuntimeCache.serialize.__doc__
    assert "EAGER" in rtx.DynamicShapesKernelSpecializationStrategy.__members__
    assert "IRuntimeConfig" in rtx.ICudaEngine.create_execution_context.__doc__
