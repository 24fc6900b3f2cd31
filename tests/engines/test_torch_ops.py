"""Every ONNX operator that the torch backend knows gives what ONNX Runtime gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from onnx import TensorProto, helper  # noqa: E402
from onnx_runs import outputs_of, run_by_torch  # noqa: E402

from cliprl.engines import EngineError  # noqa: E402
from cliprl.engines.backends.torch.graph import Graph  # noqa: E402
from cliprl.engines.backends.torch.ops import OPERATORS  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (2, 6, 8, 10)).astype(np.float32)
Y = RNG.normal(0, 2, (2, 6, 8, 10)).astype(np.float32)
P = np.abs(X) + 0.1
BITS = X > 0
WHOLE = RNG.integers(1, 9, (3, 4)).astype(np.int64)
MATRIX = RNG.normal(0, 1, (4, 5)).astype(np.float32)


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def floats(*values: float) -> Any:
    return np.array(values, np.float32)


def scalar(value: float) -> Any:
    return np.array(value, np.float32)


PLACES = "coordinate_transformation_mode"
NEAREST = {"mode": "nearest", PLACES: "asymmetric", "nearest_mode": "floor"}
# Operator, its inputs and its attributes. Integer inputs after the first are constants of the graph.
CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    *((name, [X], {}) for name in ("Abs", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Identity", "Neg", "Relu")),
    *((name, [X], {}) for name in ("Round", "Sigmoid", "Sin", "Tanh", "GlobalAveragePool")),
    *((name, [P], {}) for name in ("Log", "Reciprocal", "Sqrt")),
    *((name, [X, Y], {}) for name in ("Add", "Div", "Max", "Min", "Mul", "Sub", "Equal")),
    *((name, [X, Y], {}) for name in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    *((name, [BITS, Y > 0], {}) for name in ("And", "Or")),
    ("Not", [BITS], {}),
    ("Pow", [P, scalar(1.5)], {}),
    ("Div", [WHOLE * 7, WHOLE], {}),
    ("Max", [X, Y, scalar(1)], {}),
    ("Where", [BITS, X, Y], {}),
    ("Clip", [X, scalar(-1), scalar(1)], {}),
    ("Clip", [X, None, scalar(1)], {}),
    ("Clip", [X, scalar(0)], {}),
    ("Gelu", [X], {}),
    ("Gelu", [X], {"approximate": "tanh"}),
    ("MatMul", [X, RNG.normal(0, 1, (10, 3)).astype(np.float32)], {}),
    ("Gemm", [MATRIX, MATRIX.T.copy(), floats(1, 2, 3, 4)], {}),
    ("Gemm", [MATRIX, MATRIX], {"transB": 1, "alpha": 0.5}),
    ("Gemm", [MATRIX, MATRIX, floats(1)], {"transA": 1, "beta": 2.0}),
    ("Einsum", [MATRIX, MATRIX], {"equation": "ij,kj->ik"}),
    ("Softmax", [X], {}),
    ("Softmax", [X], {"axis": 1}),
    *((name, [X, ints(1)], {"keepdims": 0}) for name in ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin")),
    ("ReduceSum", [X, ints(1, -1)], {}),
    ("ReduceMean", [X], {}),
    ("ReduceSum", [X], {"noop_with_empty_axes": 1}),
    ("ArgMax", [X], {"axis": 1, "keepdims": 0}),
    ("Conv", [X, RNG.normal(0, 1, (4, 6, 3, 3)).astype(np.float32), floats(1, 2, 3, 4)], {"pads": [1, 1, 1, 1]}),
    ("Conv", [X, RNG.normal(0, 1, (4, 6, 3, 3)).astype(np.float32)], {"pads": [0, 1, 1, 2], "strides": [2, 2]}),
    ("Conv", [X, RNG.normal(0, 1, (6, 1, 3, 3)).astype(np.float32)], {"group": 6, "dilations": [2, 2]}),
    ("Conv", [X[0], RNG.normal(0, 1, (4, 8, 3)).astype(np.float32)], {"pads": [0, 1]}),
    ("ConvTranspose", [X, RNG.normal(0, 1, (6, 4, 2, 2)).astype(np.float32), floats(1, 2, 3, 4)], {"strides": [2, 2]}),
    (
        "ConvTranspose",
        [X, RNG.normal(0, 1, (6, 2, 3, 3)).astype(np.float32)],
        {"strides": [2, 3], "pads": [1, 0, 1, 0], "output_padding": [1, 0], "group": 2, "dilations": [1, 2]},
    ),
    ("AveragePool", [X], {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2], "strides": [1, 1]}),
    ("AveragePool", [X], {"kernel_shape": [2, 3], "strides": [2, 3], "count_include_pad": 1, "ceil_mode": 1}),
    ("MaxPool", [X], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("LayerNormalization", [X, P[0, 0, 0], X[0, 0, 0]], {"epsilon": 1e-6}),
    ("LayerNormalization", [X, P[0, 0]], {"axis": -2}),
    ("BatchNormalization", [X, *(P[0, :, 0, i].copy() for i in range(4))], {"epsilon": 1e-3}),
    *(("Cast", [X], {"to": kind}) for kind in (TensorProto.INT64, TensorProto.BOOL, TensorProto.DOUBLE)),
    ("Shape", [X], {"start": 1, "end": -1}),
    ("Reshape", [X, ints(0, -1, 5)], {}),
    ("Reshape", [X, ints(16, 60)], {"allowzero": 1}),
    ("Flatten", [X], {"axis": 2}),
    ("Transpose", [X], {"perm": [0, 2, 3, 1]}),
    ("Transpose", [X], {}),
    ("Unsqueeze", [X, ints(-1, 0)], {}),
    ("Squeeze", [X[:1], ints(0)], {}),
    ("Squeeze", [X[:1, :1]], {}),
    ("Expand", [X[:, :1], ints(2, 6, 1, 1)], {}),
    ("Tile", [X, ints(1, 2, 1, 3)], {}),
    ("Concat", [X, Y], {"axis": 1}),
    ("Split", [X, ints(1, 2, 3)], {"axis": 1}),
    ("Split", [X], {"axis": 3, "num_outputs": 3}),
    ("Slice", [X, ints(1, -4), ints(2**62, -1), ints(1, 3), ints(2, 1)], {}),
    ("Slice", [X, ints(1), ints(2)], {}),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 1, 3, 0), scalar(2)], {}),
    ("Pad", [X, ints(-1, 2), None, ints(2)], {}),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 3, 1)], {"mode": "reflect"}),
    ("Pad", [X, ints(0, 0, 1, 2, 0, 0, 3, 1)], {"mode": "edge"}),
    ("Gather", [X, ints(2, -1)], {"axis": 1}),
    ("Gather", [X, np.array(1, np.int64)], {"axis": -1}),
    ("GatherElements", [X, RNG.integers(-8, 8, (2, 6, 3, 10))], {"axis": 2}),
    ("GatherND", [X, RNG.integers(0, 2, (7, 3, 2))], {}),
    ("ConstantOfShape", [ints(2, 3)], {"value": helper.make_tensor("value", TensorProto.INT64, [1], [7])}),
    ("ConstantOfShape", [ints(2, 3)], {}),
    ("Range", [np.array(2, np.int64), np.array(9, np.int64), np.array(3, np.int64)], {}),
    ("Resize", [X, None, None, ints(2, 6, 16, 30)], NEAREST),
    ("Resize", [X, None, floats(1, 1, 2, 1.5)], {"mode": "linear"}),
    ("Resize", [X, None, None, ints(2, 6, 12, 7)], {"mode": "linear", PLACES: "align_corners"}),
    ("Resize", [X, None, None, ints(2, 6, 5, 30)], {"mode": "cubic", "cubic_coeff_a": -0.75}),
]  # fmt: skip


def model_of(kind: str, values: list[Any], attributes: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A model of one operator, and its inputs: the first tensor, and other floats; the rest are constants in it."""
    given = {f"x{i}": value for i, value in enumerate(values) if value is not None}
    is_input = {name: name == "x0" or (value.dtype == np.float32 and value.ndim > 1) for name, value in given.items()}
    node = helper.make_node(
        kind,
        [f"x{i}" if value is not None else "" for i, value in enumerate(values)],
        [f"y{i}" for i in range(3 if kind == "Split" else 1)],
        **attributes,
    )
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim)
        for name, value in given.items()
        if is_input[name]
    ]
    constants = [onnx.numpy_helper.from_array(value, name) for name, value in given.items() if not is_input[name]]
    outputs = [helper.make_empty_tensor_value_info(name) for name in node.output]
    plain = helper.make_graph([node], "one", inputs, outputs, constants)
    model = helper.make_model(plain, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    typed = onnx.shape_inference.infer_shapes(model)
    return typed, {name: value for name, value in given.items() if is_input[name]}


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda i: f"{CASES[i][0]}-{i}")
def test_an_operator_gives_what_onnxruntime_gives(case: int) -> None:
    kind, values, attributes = CASES[case]
    model, inputs = model_of(kind, values, attributes)
    if kind in ("ConstantOfShape", "Range"):
        # Shapes must be known: here they come from a constant.
        for name, value in inputs.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        del model.graph.input[:]
        inputs = {}
    expected, found = outputs_of(model, inputs), run_by_torch(model, inputs)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


def test_every_operator_is_tried() -> None:
    assert {kind for kind, _, _ in CASES} == set(OPERATORS)


@pytest.mark.parametrize(
    ("kind", "values", "attributes", "word"),
    [
        ("Hardmax", [X], {}, "Hardmax"),
        ("ArgMax", [X], {"axis": 1, "select_last_index": 1}, "select_last_index"),
        ("Slice", [X, ints(5), ints(1), ints(3), ints(-1)], {}, "-1"),
        ("Resize", [X, None, None, ints(2, 6, 16, 30)], {"mode": "nearest"}, "half_pixel"),
        ("Conv", [X, X[:, :, :3, :3].copy()], {"auto_pad": "SAME_UPPER"}, "SAME_UPPER"),
    ],
)
def test_what_torch_cannot_run_is_named(kind: str, values: list[Any], attributes: Mapping[str, Any], word: str) -> None:
    model, inputs = model_of(kind, values, attributes)
    with pytest.raises(EngineError, match=word) as caught:
        run_by_torch(model, inputs)
    assert "\n" not in str(caught.value)


def test_a_shape_that_depends_on_the_picture_is_refused() -> None:
    model, inputs = model_of("Reshape", [X, ints(2, -1)], {})
    cast = helper.make_node("Cast", ["x0"], ["x1"], to=TensorProto.INT64)
    del model.graph.initializer[:]
    model.graph.node.insert(0, cast)
    with pytest.raises(EngineError, match="depends on the image"):
        Graph(model.SerializeToString(), "cpu").program({"x0": torch.as_tensor(inputs["x0"])})
