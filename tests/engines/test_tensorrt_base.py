"""The networks of `base`, a ViT-B/16, become TensorRT engines without a GPU; matrix products become convolutions for Turing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cliprl.engines.backends.engine import TensorSpec
from cliprl.engines.backends.tensorrt.backend import make_engine_plan

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
open_clip = pytest.importorskip("open_clip")
RTX = pytest.importorskip("tensorrt_rtx").__name__

import torch  # noqa: E402

from cliprl.engines.bundle.bundle import RANGES_FILE  # noqa: E402
from cliprl.engines.onnx.dynamic_conv import load_graph  # noqa: E402
from cliprl.engines.onnx.load import set_batch  # noqa: E402
from cliprl.engines.onnx.matmul_to_conv import replace_matrix_products  # noqa: E402
from cliprl.engines.onnx.quantize import products  # noqa: E402
from cliprl.models.config.config import ReinforcementConfig  # noqa: E402
from cliprl.models.config.load import load_recipe  # noqa: E402
from cliprl.models.export.export import write_networks  # noqa: E402
from cliprl.models.network.network import ClipSegmenter  # noqa: E402
from cliprl.models.network.refiner import RefinerNetwork  # noqa: E402

EMBEDDING, FEATURES = 512, 64
BASE = load_recipe("base").network
HEIGHT, WIDTH = BASE.height, BASE.width
# Blocks are all alike: four in place of twelve, of the recipe's own width, heads, patches and image size.
BLOCKS = 4


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` with four blocks, at random; only its form matters here."""
    assert (BASE.tower, BASE.features) == ("ViT-B-16", FEATURES)
    folder = tmp_path_factory.mktemp("short")
    model = open_clip.get_model_config("ViT-B-16")
    model["vision_cfg"] |= {"layers": BLOCKS}
    model["text_cfg"] |= {"layers": 1}
    (folder / "short.json").write_text(json.dumps(model))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = ClipSegmenter(replace(BASE, tower=str(folder / "short.json"), weights="")).eval()
    with torch.no_grad():
        refiner = RefinerNetwork.beside(network, BASE.policy, 12, ReinforcementConfig()).eval()
        write_networks(network, refiner, torch.randn(12, EMBEDDING), folder)
    return folder


def tensors(network: str) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    deep = TensorSpec("float32", (1, FEATURES, HEIGHT // 4, WIDTH // 4))
    scores = TensorSpec("float32", (1, -1, HEIGHT // 4, WIDTH // 4))
    text = TensorSpec("float32", (-1, EMBEDDING))
    if network == "encoder":
        image = TensorSpec("uint8", (1, HEIGHT, WIDTH, 3))
        return {"image": image, "text": text}, {"features": deep, "logits": scores}
    inputs = {"features": deep, "logits": scores, "base": scores, "prior": scores, "text": text}
    return inputs, {"refined": scores, "moved": TensorSpec("float32", ())}


@pytest.mark.parametrize(("target", "precision"), [("sm75", "f32"), ("sm75", "f16"), ("sm120", "f16")])
@pytest.mark.parametrize("network", ["encoder", "refiner"])
def test_a_vit_is_built_ahead_of_time(short: Path, network: str, target: str, precision: str) -> None:
    """The strictest GPU in both precisions, and the newest; the bundle that is shipped is built for all."""
    path = short / f"{network}.onnx"
    plan = make_engine_plan(RTX, path, precision, {}, target)
    inputs, outputs = tensors(network)
    assert plan.inputs == inputs
    assert plan.outputs == outputs
    assert set(plan.profile) == {name for name, spec in inputs.items() if -1 in spec.shape}
    for name, shapes in plan.profile.items():
        for shape, classes in zip(shapes, (2, 12, 64), strict=True):
            assert shape == tuple(classes if s == -1 else s for s in inputs[name].shape)
    assert len(plan.data) > path.stat().st_size // 3
    for name in inputs | outputs:
        assert name.encode() in plan.data


def test_a_vit_of_several_pictures_is_built_ahead_of_time(short: Path) -> None:
    plan = make_engine_plan(RTX, short / "encoder.onnx", "f16", {"image": (8, HEIGHT, WIDTH, 3)}, "sm86")
    assert plan.inputs["image"].shape == (8, HEIGHT, WIDTH, 3)
    assert plan.outputs["logits"].shape == (8, -1, HEIGHT // 4, WIDTH // 4)


@pytest.mark.parametrize(("precision", "target"), [("int8", "sm86"), ("fp8", "sm89")])
def test_a_vit_in_eight_bits_is_built_ahead_of_time(short: Path, precision: str, target: str) -> None:
    found = products(load_graph(short / "encoder.onnx"))
    # In every block: the three projections in one, the attention's output, the two of the perceptron.
    assert len(found) >= 4 * BLOCKS
    (short / RANGES_FILE).write_text(json.dumps({"ranges": {p.activation: 8.0 for p in found.values()}}))
    plan = make_engine_plan(RTX, short / "encoder.onnx", precision, {}, target)
    inputs, outputs = tensors("encoder")
    assert (plan.inputs, plan.outputs) == (inputs, outputs)
    # The file has four bytes a weight, a plan in half precision two.
    assert len(plan.data) < 0.8 * (short / "encoder.onnx").stat().st_size / 2


def outputs_of(model: Any, inputs: dict[str, Any]) -> list[Any]:
    return list(ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs))


def test_products_as_convolutions_say_the_same(short: Path) -> None:
    model = load_graph(short / "encoder.onnx")
    set_batch(model, 1)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, HEIGHT, WIDTH, 3)).astype(np.uint8)
    inputs = {"image": image, "text": rng.normal(size=(5, EMBEDDING)).astype(np.float32)}
    expected = outputs_of(model, inputs)
    replace_matrix_products(model)
    onnx.checker.check_model(model, full_check=True)
    assert not {"MatMul", "Gemm"} & {node.op_type for node in model.graph.node}
    for found, wanted in zip(outputs_of(model, inputs), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("left", "right", "kind", "settings"),
    [
        ((5, 3), (3, 4), "MatMul", {}),
        ((2, 5, 3), (3, 4), "MatMul", {}),
        ((2, 3, 5, 3), (2, 3, 3, 4), "MatMul", {}),
        ((5, 3), (3, 4), "Gemm", {}),
        ((5, 3), (4, 3), "Gemm", {"transB": 1}),
        ((2, 5, 3), (1, 3, 4), "MatMul", {}),
        ((3, 5), (3, 4), "Gemm", {"transA": 1}),
        ((5, 3), (3, 4), "Gemm", {"alpha": 0.5}),
    ],
)
@pytest.mark.parametrize("biased", [False, True])
def test_every_kind_of_product(
    left: tuple[int, ...], right: tuple[int, ...], kind: str, settings: dict[str, Any], biased: bool
) -> None:
    helper, rng = onnx.helper, np.random.default_rng(1)
    names = ["a", "b", "c"] if biased and kind == "Gemm" else ["a", "b"]
    values = [rng.normal(size=shape).astype(np.float32) for shape in (left, right, (4,))]
    infos = [helper.make_tensor_value_info(n, 1, v.shape) for n, v in zip(names, values, strict=False)]
    result = helper.make_tensor_value_info("y", 1, None)
    graph = helper.make_graph([helper.make_node(kind, names, ["y"], **settings)], "g", infos, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    inputs = dict(zip(names, values, strict=False))
    expected = outputs_of(model, inputs)
    replace_matrix_products(model)
    np.testing.assert_allclose(outputs_of(model, inputs)[0], expected[0], atol=1e-5)
