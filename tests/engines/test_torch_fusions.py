"""Groups of operators become one in torch, and give what they gave written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_runs import outputs_of, run_by_torch  # noqa: E402

from cliprl.engines.backends.torch.graph import Graph  # noqa: E402
from cliprl.engines.onnx.fp16 import to_fp16  # noqa: E402

RNG = np.random.default_rng(0)


def model(nodes: list[Any], inputs: dict[str, Any], constants: dict[str, float], shape: tuple[int, ...]) -> Any:
    values = [helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape) for k, v in inputs.items()]
    kept = [numpy_helper.from_array(np.array(v, np.float32), k) for k, v in constants.items()]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", values, [out], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def attention(shape: tuple[int, ...], axis: int = -1) -> tuple[Any, dict[str, Any]]:
    *batch, many, wide = shape
    inputs = {
        "q": RNG.normal(0, 1, shape).astype(np.float32),
        "k": RNG.normal(0, 1, (*batch, wide, many)).astype(np.float32),
        "v": RNG.normal(0, 1, shape).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node("Softmax", ["s"], ["w"], axis=axis),
        helper.make_node("MatMul", ["w", "v"], ["y"]),
    ]
    return model(nodes, inputs, {}, shape), inputs


def gelu(root: float = math.sqrt(2)) -> tuple[Any, dict[str, Any]]:
    inputs = {"x": RNG.normal(0, 3, (2, 5, 7)).astype(np.float32)}
    nodes = [
        helper.make_node("Div", ["x", "root"], ["a"]),
        helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]),
        helper.make_node("Mul", ["half", "c"], ["d"]),
        helper.make_node("Mul", ["x", "d"], ["y"]),
    ]
    return model(nodes, inputs, {"root": root, "one": 1, "half": 0.5}, (2, 5, 7)), inputs


def kinds(made: Any) -> list[str]:
    return [node.kind for node in Graph(made.SerializeToString(), "cpu")._nodes]


@pytest.mark.parametrize("shape", [(1, 4, 33, 16), (2, 3, 9, 8), (6, 12, 8)])
def test_attention_is_one(shape: tuple[int, ...]) -> None:
    made, inputs = attention(shape)
    assert kinds(made) == ["MatMul"]
    np.testing.assert_allclose(run_by_torch(made, inputs)["y"], outputs_of(made, inputs)["y"], atol=2e-6)


def test_another_axis_is_none() -> None:
    made, inputs = attention((1, 2, 8, 8), axis=2)
    assert kinds(made) == ["MatMul", "Softmax", "MatMul"]
    np.testing.assert_allclose(run_by_torch(made, inputs)["y"], outputs_of(made, inputs)["y"], atol=2e-6)


def test_gelu_is_one() -> None:
    made, inputs = gelu()
    assert kinds(made) == ["Gelu"]
    np.testing.assert_allclose(run_by_torch(made, inputs)["y"], outputs_of(made, inputs)["y"], atol=2e-6)


def test_what_only_looks_like_gelu_is_none() -> None:
    made, inputs = gelu(1.5)
    assert "Erf" in kinds(made)
    np.testing.assert_allclose(run_by_torch(made, inputs)["y"], outputs_of(made, inputs)["y"], atol=2e-6)


@pytest.mark.parametrize(("made", "inputs", "kind"), [(*gelu(), "Gelu"), (*attention((1, 2, 17, 8)), "MatMul")])
def test_in_half_precision_changes_of_type_are_looked_through(made: Any, inputs: dict[str, Any], kind: str) -> None:
    halved = to_fp16(made)
    assert [k for k in kinds(halved) if k != "Cast"] == [kind]
    np.testing.assert_allclose(run_by_torch(halved, inputs)["y"], outputs_of(made, inputs)["y"], atol=0.02)


def test_a_part_that_others_need_stays() -> None:
    made, inputs = gelu()
    made.graph.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, (2, 5, 7)))
    assert kinds(made) == ["Div", "Erf", "Gelu"]
    found, expected = run_by_torch(made, inputs), outputs_of(made, inputs)
    for name in ("y", "b"):
        np.testing.assert_allclose(found[name], expected[name], atol=2e-6)
