"""Why parts of this room are written by hand: what the libraries for them do with the same networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_runs import outputs_of  # noqa: E402

from cliprl.engines import open_bundle  # noqa: E402
from cliprl.engines.onnx.fp16 import to_fp16  # noqa: E402
from cliprl.engines.onnx.quantize import quantize_graph  # noqa: E402

RNG = np.random.default_rng(0)
BUNDLE = open_bundle("small")


@pytest.mark.parametrize("path", [BUNDLE.encoder, BUNDLE.refiner], ids=["encoder", "refiner"])
def test_onnx2torch_converts_neither_network(path: Any) -> None:
    """`backends/torch` runs both, for any number of classes (test_torch_engine.py)."""
    library = pytest.importorskip("onnx2torch")
    with pytest.raises(NotImplementedError, match=r"Resize|ReduceMax"):
        library.convert(onnx.load(path))


@pytest.mark.filterwarnings("ignore:the float32 number")
@pytest.mark.parametrize("path", [BUNDLE.encoder, BUNDLE.refiner], ids=["encoder", "refiner"])
def test_onnxconverter_common_makes_an_invalid_graph_in_fp16(path: Any) -> None:
    """It leaves casts to float32 among nodes in float16. `to_fp16` checks its own result."""
    library = pytest.importorskip("onnxconverter_common.float16")
    halved = library.convert_float_to_float16(onnx.load(path), keep_io_types=True)
    del halved.graph.value_info[:]
    with pytest.raises(Exception, match=r"(?i)type"):
        onnx.checker.check_model(halved, full_check=True)
    to_fp16(onnx.load(path))


def product_model() -> tuple[Any, np.ndarray[Any, Any]]:
    """A matrix product as deep as those of the encoder, and activations as after a rectifier, with a few large ones."""
    samples = np.maximum(RNG.normal(0, 1, (8, 256, 96)), 0).astype(np.float32)
    samples[:, ::50] *= 8
    weights = numpy_helper.from_array(RNG.normal(0, 0.1, (96, 96)).astype(np.float32), "w")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [256, 96]) for name in "xy")
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    graph = helper.make_graph([node], "g", [x], [y], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), samples


MODEL, SAMPLES = product_model()


def error(model: Any) -> float:
    """The relative error of a quantized model's outputs."""
    pairs = [(outputs_of(model, {"x": x})["y"], outputs_of(MODEL, {"x": x})["y"]) for x in SAMPLES]
    return float(np.linalg.norm([a - b for a, b in pairs]) / np.linalg.norm([b for _, b in pairs]))


@pytest.fixture(scope="module")
def from_library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same model in FP8 by onnxruntime.quantization, which computes FP8 scales by "distribution" alone."""
    from onnxruntime import quantization

    folder = tmp_path_factory.mktemp("fp8")
    onnx.save(MODEL, folder / "in.onnx")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._samples = iter(SAMPLES)

        def get_next(self) -> Any:
            sample = next(self._samples, None)
            return None if sample is None else {"x": sample}

    quantization.quantize_static(
        str(folder / "in.onnx"),
        str(folder / "out.onnx"),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QFLOAT8E4M3FN,
        weight_type=quantization.QuantType.QFLOAT8E4M3FN,
        calibrate_method=quantization.CalibrationMethod.Distribution,
        per_channel=True,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "OpTypesToExcludeOutputQuantization": ["MatMul"],
        },
    )
    return onnx.load(folder / "out.onnx")


def test_onnxruntime_loses_more_in_fp8(from_library: Any) -> None:
    copy = type(MODEL)()
    copy.CopyFrom(MODEL)
    ours = error(quantize_graph(copy, "fp8", {"x": float(np.abs(SAMPLES).max())}))
    assert ours < 0.05
    assert error(from_library) > 1.2 * ours
