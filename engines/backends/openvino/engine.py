"""Run a network that OpenVINO has compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import cycle
from typing import Any

from numpy.typing import NDArray

from cliprl.engines.backends.engine import Engine, Request, TensorSpec
from cliprl.engines.backends.openvino.rewrites import CHANNELS_FIRST, CHANNELS_LAST, KEPT_CHANNELS_LAST
from cliprl.engines.cpu_count import available_cpus


class OpenVinoEngine(Engine):
    """One compiled network with a few infer requests, used in turn.

    A run that begins during another one loads the network once more, and both compute on the thread that asks for them.
    (Two streams of one compiled network compute on threads of OpenVINO, which a stage would wait for, and take longer to load.)

    On two processors with one thread each two runs at a time are faster: without instructions for int8 the encoder takes more
    than half of the work on a frame, and the other processor waits for it.

    Features are channels last in memory, whatever their shape says: transposed views.
    """

    def __init__(self, load: Callable[[], Any], backend: str, request: Request) -> None:
        self.backend, self.precision = backend, request.precision
        self.at_once = 2 if request.threads == 1 and available_cpus() == 2 else 1
        self._load, self._buffers = load, request.buffers
        compiled = load()
        self._idle = [self._requests_of(compiled)]
        self.inputs: Mapping[str, TensorSpec] = {_name(port): _spec(port) for port in compiled.inputs}
        self.outputs: Mapping[str, TensorSpec] = {_name(port): _spec(port) for port in compiled.outputs}
        self._names = tuple(self.outputs)

    def _requests_of(self, compiled: Any) -> Iterator[Any]:
        return cycle([compiled.create_infer_request() for _ in range(self._buffers)])

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Run once. C-contiguous inputs, and features of another engine, are read in place.

        Outputs are views, valid until `buffers` more runs.
        """
        given = {name: _turned(name, array, CHANNELS_LAST) for name, array in inputs.items()}
        try:
            requests = self._idle.pop()
        except IndexError:
            requests = self._requests_of(self._load())
        results = next(requests).infer(given, share_inputs=True, share_outputs=True)
        self._idle.append(requests)
        return {name: _turned(name, results[i], CHANNELS_FIRST) for i, name in enumerate(self._names)}


def _name(port: Any) -> str:
    """Return the name that a tensor has in the ONNX file; where OpenVINO removed a node, it has the names of both sides."""
    friendly = str(port.get_node().get_friendly_name()).removesuffix("/sink_port_0")
    return friendly if friendly in port.get_names() else str(port.get_any_name())


def _spec(port: Any) -> TensorSpec:
    sizes = [-1 if size.is_dynamic else int(size.get_length()) for size in port.partial_shape]
    if _name(port) in KEPT_CHANNELS_LAST:
        sizes = [sizes[axis] for axis in CHANNELS_FIRST]
    return TensorSpec(str(port.element_type.to_dtype()), tuple(sizes))


def _turned(name: str, array: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    return array.transpose(axes) if name in KEPT_CHANNELS_LAST else array
