"""OpenVINO is imported without what only a compiler of networks needs."""

from __future__ import annotations

from cliprl.engines.backends.no_telemetry import openvino


def test_operators_of_openvino_are_imported_when_used() -> None:
    package = openvino()
    assert package.opset8.relu
    assert package.opset13.relu
    assert not hasattr(package, "opset99")
