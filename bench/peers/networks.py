"""The plain loop on the three common CPU engines: OpenVINO, ONNX Runtime and PyTorch."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.bench.harness.timing import BenchJob, Runner, TaskOutcome
from cliprl.bench.peers import baseline_loop, peer
from cliprl.bench.peers.baseline_loop import Array, PlainSegmenter
from cliprl.engines import Bundle, CliprlError, compile_engine, load_engines, open_bundle
from cliprl.engines.backends.registry import backend_of

# How the loops differ from the pipeline.
_SAME = "same bundle, input size and x264 preset; every refinement step taken; full-size RGB in between, no contours or legend"
_RANDOM = "random weights in the same network, float32; input size, preset and drawing as in the other loops"
_ALONE = "as the loop above, its network on one thread"
_LIBRARIES = ("opencv-python-headless", "av")
LOOP_PACKAGES = ("openvino", *_LIBRARIES)
_ONNXRUNTIME = (("onnxruntime",), "pip install onnxruntime", ("onnxruntime", *_LIBRARIES))
_TORCH = (("torch", "open_clip", "timm"), "pip install 'cliprl[train]'", ("torch", *_LIBRARIES))


@peer("OpenCV + OpenVINO loop", f"same engine, {_SAME}", packages=LOOP_PACKAGES)
def openvino_loop(job: BenchJob) -> Runner:
    """Run the plain loop on the engine of `cliprl-stream`."""
    bundle = open_bundle(job.bundle)
    return _loop(job, bundle, openvino_segmenter(bundle, job.steps))


@peer("OpenCV + OpenVINO loop, 1 thread", "as the loop above, its networks on one thread", packages=LOOP_PACKAGES)
def openvino_loop_alone(job: BenchJob) -> Runner:
    """Run the same with one thread, which leaves a core to the loop's other threads."""
    bundle = open_bundle(job.bundle)
    return _loop(job, bundle, openvino_segmenter(bundle, job.steps, 1))


@peer("OpenCV + ONNX Runtime loop", _SAME, *_ONNXRUNTIME)
def onnxruntime_loop(job: BenchJob) -> Runner:
    """Run the plain loop on ONNX Runtime's CPU provider with its defaults: one thread per core."""
    return _onnxruntime_loop(job, 0)


@peer("OpenCV + ONNX Runtime loop, 1 thread", _ALONE, *_ONNXRUNTIME)
def onnxruntime_loop_alone(job: BenchJob) -> Runner:
    """Run the same with one thread, which leaves a core to the loop's other threads."""
    return _onnxruntime_loop(job, 1)


@peer("OpenCV + torch loop", _RANDOM, *_TORCH)
def torch_loop(job: BenchJob) -> Runner:
    """Run the plain loop on eager PyTorch: same shapes, random weights, one thread per core."""
    bundle = open_bundle(job.bundle)
    return _loop(job, bundle, _torch_segmenter(bundle, job.steps))


@peer("OpenCV + torch loop, 1 thread", _ALONE, *_TORCH)
def torch_loop_alone(job: BenchJob) -> Runner:
    """Run the same with one thread, which leaves a core to the loop's other threads."""
    import torch

    torch.set_num_threads(1)
    return torch_loop(job)


def _onnxruntime_loop(job: BenchJob, threads: int) -> Runner:
    bundle = open_bundle(job.bundle)
    return _loop(job, bundle, _onnxruntime_segmenter(bundle, job.steps, threads))


def _loop(job: BenchJob, bundle: Bundle, segment: PlainSegmenter) -> Runner:
    def run(out: Path, frames: int | None) -> TaskOutcome:
        return TaskOutcome(baseline_loop.run_loop(Path(job.clip), out, bundle, segment, frames))

    return run


def _size(bundle: Bundle) -> tuple[int, int]:
    return bundle.manifest.width, bundle.manifest.height


def _steps(bundle: Bundle, steps: int | None) -> int:
    return bundle.manifest.steps if steps is None else steps


def _blank(bundle: Bundle) -> Array:
    width, height = _size(bundle)
    return np.zeros((1, height, width, 3), np.uint8)


def openvino_segmenter(bundle: Bundle, steps: int | None, threads: int = 0) -> PlainSegmenter:
    """Both networks in the precision that the pipeline selects here; `threads` 0 is OpenVINO's default, all cores."""
    text = bundle.embeddings
    blank = _blank(bundle)
    serving = load_engines(bundle)
    path = bundle.path / backend_of(serving.backend).sources(serving.precision)[0]
    shapes = {"image": blank.shape, "text": text.shape}
    encoder = compile_engine(path, precision=serving.precision, threads=threads, shapes=shapes)
    first = encoder.run({"image": blank, "text": text})
    grid = first["logits"].shape
    logits = dict.fromkeys(("logits", "base", "prior"), grid)
    shapes = {"features": first["features"].shape, **logits, "text": text.shape}
    refiner = compile_engine(bundle.refiner, precision=serving.refiner.precision, threads=threads, shapes=shapes)

    def encode(image: Array) -> tuple[Array, Array]:
        outputs = encoder.run({"image": image, "text": text})
        return outputs["features"], outputs["logits"]

    def refine(features: Array, logits: Array, base: Array, prior: Array) -> Array:
        inputs = {"features": features, "logits": logits, "base": base, "prior": prior, "text": text}
        return refiner.run(inputs)["refined"]

    return PlainSegmenter(_size(bundle), _steps(bundle, steps), encode, refine)


def _onnxruntime_segmenter(bundle: Bundle, steps: int | None, threads: int) -> PlainSegmenter:
    runtime: Any = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    encoder, refiner = (
        runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for path in (bundle.encoder, bundle.refiner)
    )
    text = bundle.embeddings

    def encode(image: Array) -> tuple[Array, Array]:
        features, logits = encoder.run(["features", "logits"], {"image": image, "text": text})
        return features, logits

    def refine(features: Array, logits: Array, base: Array, prior: Array) -> Array:
        inputs = {"features": features, "logits": logits, "base": base, "prior": prior, "text": text}
        refined: Array = refiner.run(["refined"], inputs)[0]
        return refined

    return PlainSegmenter(_size(bundle), _steps(bundle, steps), encode, refine)


def _torch_segmenter(bundle: Bundle, steps: int | None) -> PlainSegmenter:
    import torch

    from cliprl.models.config.config import ReinforcementConfig
    from cliprl.models.config.load import load_recipe
    from cliprl.models.network.network import ClipSegmenter
    from cliprl.models.network.refiner import RefinerNetwork

    width, height = _size(bundle)
    config = replace(load_recipe().network, weights="", width=width, height=height)
    network = ClipSegmenter(config).eval()
    refiner = RefinerNetwork.beside(network, config.policy, len(bundle.embeddings), ReinforcementConfig()).eval()
    text = torch.from_numpy(bundle.embeddings)
    if text.shape[1] != config.embedding:
        raise CliprlError(
            f"the bundle's embeddings have {text.shape[1]} numbers, the network of the default recipe {config.embedding}: "
            "name the other peers with --peer"
        )

    def encode(image: Array) -> tuple[Array, Array]:
        with torch.inference_mode():
            features, logits = network(torch.from_numpy(image), text)
        return features.numpy(), logits.numpy()

    def refine(*arrays: Array) -> Array:
        with torch.inference_mode():
            refined, _ = refiner(*(torch.from_numpy(array) for array in arrays), text)
        return np.asarray(refined.numpy())

    return PlainSegmenter((width, height), _steps(bundle, steps), encode, refine)
