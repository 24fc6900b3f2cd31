"""The base of engines that stand in for a compiled network."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from cliprl.engines.backends.engine import Engine, TensorSpec


class FakeEngine(Engine):
    """An engine whose `run` a test writes: for inputs of any size, or for those of the engine that it is `like`."""

    backend, precision = "test", "f32"
    inputs: Mapping[str, TensorSpec] = MappingProxyType({})
    outputs: Mapping[str, TensorSpec] = MappingProxyType({})

    def __init__(self, like: Engine | None = None) -> None:
        if like is not None:
            self.backend, self.precision = like.backend, like.precision
            self.inputs, self.outputs = like.inputs, like.outputs
