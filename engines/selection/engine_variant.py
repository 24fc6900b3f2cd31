"""One backend in one precision for a bundle: build it, load it, and compare it with the reference."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.engines.backends.engine import AUTO, Backend, Engine, LogFunction, Request, ignore_message
from cliprl.engines.backends.registry import ready_backends
from cliprl.engines.bundle.bundle import EMBEDDINGS, ENCODER, INT8_ENCODER, INT8_WEIGHTS, REFINER, Bundle, open_bundle
from cliprl.engines.bundle.input_size import one_size_only, size_of, with_input_size
from cliprl.engines.bundle.reference_outputs import Reference, encoder_shapes, predict, refiner_shapes, source_of
from cliprl.engines.bundle.validation import MAX_EMBEDDING, read_array
from cliprl.engines.cache.cache_store import StoredEntry
from cliprl.engines.cpu_count import network_threads
from cliprl.engines.errors import BundleError, EngineError, UsageError
from cliprl.engines.selection.accuracy_gate import GATE_VERSION, Comparison, judge

# How many more frames may pass while an encoder's outputs stay valid, and how often one is run on a frame at most.
BUFFERS, RUNS_A_FRAME = 4, 2
# Which of an input's dimensions counts the classes.
CLASS_AXES = {"text": 0, "logits": 1, "base": 1, "prior": 1}


@dataclass(frozen=True, slots=True)
class CompiledBundle:
    """A bundle's two networks, compiled alike. `report` is the gate's: what was compared with the reference, and how it went."""

    encoder: Engine
    refiner: Engine
    report: Mapping[str, Any]

    @property
    def backend(self) -> str:
        """The backend that runs both."""
        return self.encoder.backend

    @property
    def precision(self) -> str:
        """The arithmetic of both."""
        return self.encoder.precision

    def encoder_for(self, bundle: Bundle) -> Engine:
        """Return the encoder. Raises UsageError if it is for another input size or number of classes than the bundle has.

        One that names no inputs, such as that of a network in training, is not checked.
        """
        wanted = {"image": (1, *size_of(bundle), 3), "text": bundle.embeddings.shape}
        specs = self.encoder.inputs
        for name, shape in wanted.items():
            made = specs[name].shape if name in specs else shape
            if any(size not in (-1, asked) for size, asked in zip(made, shape, strict=True)):
                raise UsageError(
                    f"the engines take '{name}' of {made}, and the bundle has {shape}: make them with load_engines of the same "
                    "input size and prompts, with batch=1"
                )
        return self.encoder


@dataclass(frozen=True, slots=True)
class EngineVariant:
    """One way to run a bundle: a backend, a precision, and the CPU threads it may use.

    With `open_classes` the engines take any number of classes, at a cost of about 3 %; the gate judges them on the bundle's.
    The encoder takes `batch` images at a time; the refiner, whose frames wait for each other, one. `sidecar`: see `Request`.
    """

    bundle: Bundle
    backend: Backend
    precision: str
    threads: int
    open_classes: bool = False
    batch: int = 1
    sidecar: Path | None = None

    def fields(self) -> dict[str, str]:
        """Everything that the compiled engines, and the verdict on them, depend on."""
        hashes, shapes = self.bundle.manifest.hashes, self.encoder_request().shapes
        return {
            "bundle": self.bundle.manifest.name,
            "backend": self.backend.name,
            "precision": self.precision,
            "encoder": "".join(hashes[name] for name in self.backend.sources(self.precision)),
            "refiner": hashes[REFINER],
            "texts": hashlib.sha256(self.bundle.embeddings.tobytes()).hexdigest(),
            "shapes": "; ".join(f"{name} {shape}" for name, shape in shapes.items()),
            "steps": str(self.bundle.manifest.steps),
            "threads": str(self.threads),
            "reference": f"{source_of(self.bundle)}, rule {GATE_VERSION}",
            **self.backend.identity(),
        }

    def build(self) -> dict[str, bytes]:
        """Compile both networks. Raises EngineError where the backend can't."""
        return self.compile()[0]

    def compile(self) -> tuple[dict[str, bytes], CompiledBundle]:
        """Compile both networks, and make ready to run what can be stored. Raises EngineError where the backend can't."""
        request = self.encoder_request()
        parts = {ENCODER: self._built(request)}
        encoder = self._checked(self.backend.load(parts[ENCODER], request))
        request = self._refiner(refiner_shapes(self.bundle, encoder))
        parts[REFINER] = self._built(request)
        return parts, CompiledBundle(encoder, self.backend.load(parts[REFINER], request), {})

    def _built(self, request: Request) -> bytes:
        """Compile a network. Raises EngineError, and for a graph that is made for one input size BundleError."""
        try:
            return self.backend.build(request)
        except EngineError as error:
            if self.bundle.own_size is None or not self._builds_at_own_size():
                raise
            raise BundleError(one_size_only(self.bundle, request.onnx.name)) from error

    def _builds_at_own_size(self) -> bool:
        try:
            replace(self, bundle=with_input_size(self.bundle, self.bundle.own_size)).build()
        except EngineError:
            return False
        return True

    def load(self, made: StoredEntry) -> CompiledBundle:
        """Make what `build` gave ready to run."""
        encoder = self._checked(self.backend.load(made.parts[ENCODER], self.encoder_request()))
        request = self._refiner(refiner_shapes(self.bundle, encoder))
        return CompiledBundle(encoder, self.backend.load(made.parts[REFINER], request), made.report)

    def _checked(self, encoder: Engine) -> Engine:
        """The encoder, if its outputs are of the manifest's grid: what is read from them later is not checked again."""
        manifest = self.bundle.manifest
        grid = (manifest.height // manifest.stride, manifest.width // manifest.stride)
        for name in ("features", "logits"):
            shape = encoder.outputs[name].shape if name in encoder.outputs else ()
            if self.bundle.own_size and len(shape) == 4 and shape[2:] != grid:
                raise BundleError(one_size_only(self.bundle, self.encoder_request().onnx.name))
            if len(shape) != 4 or shape[2:] != grid or not -1 <= shape[1] <= MAX_EMBEDDING:
                raise BundleError(
                    f"{self.bundle.encoder} gives '{name}' of shape {shape}; the manifest's size and stride need "
                    f"(1, channels up to {MAX_EMBEDDING}, {grid[0]}, {grid[1]}): write the bundle again"
                )
        return encoder

    def encoder_request(self) -> Request:
        """What the encoder is made of."""
        path = self.bundle.path / self.backend.sources(self.precision)[0]
        shapes = dict(encoder_shapes(self.bundle, self.batch))
        if self.open_classes:
            shapes = opened(shapes)
        return Request(path, self.precision, self.threads, shapes, BUFFERS * RUNS_A_FRAME, self.sidecar)

    def _refiner(self, shapes: Mapping[str, tuple[int, ...]]) -> Request:
        # Eight bits are the encoder's: the refiner's products are few, and its steps add up their errors.
        precision = self.precision if self.precision in self.backend.precisions() else self.backend.precisions()[0]
        if self.open_classes:
            shapes = opened(shapes)
        return Request(self.bundle.refiner, precision, self.threads, shapes, sidecar=self.sidecar)


def opened(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of inputs with an open number of classes, -1."""
    axes = {name: CLASS_AXES.get(name) for name in shapes}
    return {name: tuple(-1 if i == axes[name] else n for i, n in enumerate(s)) for name, s in shapes.items()}


def engine_variants(
    bundle: Bundle,
    device: str,
    precision: str = AUTO,
    threads: int = 0,
    log: LogFunction = ignore_message,
    batch: int = 1,
) -> Iterator[EngineVariant]:
    """Each backend that can serve, in each of its precisions or in the one asked for; the preferred first.

    For a bundle whose classes were changed since it was opened, they leave the number of classes open: another prompt
    then needs no other engine. Raises UsageError for a precision that none of them has here, EngineError where no backend serves.
    """
    changed = not np.array_equal(read_array(bundle.path / EMBEDDINGS), bundle.embeddings)
    bundle = with_input_size(open_bundle(bundle.path), size_of(bundle)) if changed else bundle
    # OpenVINO's int8 encoder was made for the bundle's own number of classes.
    files = set(bundle.manifest.hashes) - ({INT8_ENCODER, INT8_WEIGHTS} if changed else set())
    backends = ready_backends(device, log)
    if precision != AUTO and all(backend.lacks(precision, files) for backend in backends):
        reasons = "; ".join(f"{backend.name}: {backend.lacks(precision, files)}" for backend in backends)
        known = dict.fromkeys(each for backend in backends for each in backend.precisions(files))
        raise UsageError(
            f"precision '{precision}' can't be had on {device} here ({reasons}): give {', '.join([AUTO, *known])}"
        )
    for backend in backends:
        for each in backend.precisions(files):
            if precision in (AUTO, each):
                yield EngineVariant(bundle, backend, each, threads or network_threads(), changed, batch)


def compare_with_reference(pair: CompiledBundle, bundle: Bundle, reference: Reference) -> tuple[Comparison, Comparison]:
    """Run the compiled networks of a bundle over the reference's images, and compare."""
    outputs = predict(pair.encoder, pair.refiner, reference.images, bundle)
    return judge(*outputs, reference, [spec.name for spec in bundle.manifest.classes])
