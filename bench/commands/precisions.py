"""`cliprl-bench precisions`: the share of labels that each precision of the encoder keeps, and the most sensitive layers.

The score is the share of grid cells with the label of the 32-bit reference, on other frames than the calibration used.
ONNX Runtime computes the GPU's FP16, int8 and FP8 from the same graphs as TensorRT, with the graphs' rounding.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cliprl.bench.harness.clips import short_name
from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction
from cliprl.engines import Bundle, EngineError, compile_engine, open_bundle
from cliprl.engines.bundle.reference_outputs import ImageBatch, encoder_shapes
from cliprl.engines.onnx.calibration import measure_ranges
from cliprl.engines.onnx.nncf_int8 import add_int8
from cliprl.pipeline import open_source
from cliprl.pipeline.segment.segmenter import CpuPreprocessor
from cliprl.pipeline.view.field_of_view import FieldOfViewDetector

METHOD = {
    "includes": "the encoder's labels, one sample a frame; frames evenly out of each source, cropped to the field of view",
    "excludes": "refinement; calibration frames, which come from other sources",
}
EIGHT = ("int8", "fp8")
Encode = Callable[[Any], Any]


def sample_frames(source: str, count: int, bundle: Bundle) -> ImageBatch:
    """Up to `count` network inputs, evenly out of a source: uint8 (N, H, W, 3)."""
    manifest, preprocessor = bundle.manifest, CpuPreprocessor()
    with open_source(source) as opened:
        total = opened.info.frames or count
        step = max(total // count, 1)
        detector = FieldOfViewDetector(manifest.height, manifest.width)
        images = []
        for frame in islice(opened, 0, step * count, step):
            images.append(np.zeros((manifest.height, manifest.width, 3), np.uint8))
            preprocessor.prepare(frame, detector.view_of(frame), images[-1])
    return np.array(images)


def encoders(bundle: Bundle, calibration: ImageBatch, folder: Path) -> Iterator[tuple[str, Encode]]:
    """Yield each variant's name and a function from an image to its logits. Raises EngineError where a package is missing."""
    shapes = encoder_shapes(bundle)
    shutil.copytree(bundle.path, folder)
    quantised = add_int8(open_bundle(folder), calibration)
    for precision, path in (("bf16", bundle.encoder), ("int8", folder / "encoder-int8.xml")):
        yield f"openvino {precision}", _running(compile_engine(path, precision=precision, shapes=shapes), quantised)
    for name, model in _graphs(bundle, measure_ranges(bundle, calibration)):
        yield name, _by_onnxruntime(model, bundle)


def _graphs(bundle: Bundle, ranges: Mapping[str, float]) -> Iterator[tuple[str, Any]]:
    """Yield TensorRT's graphs: FP16, eight bits as built, and eight bits with the layers that are otherwise kept in FP16."""
    from cliprl.engines.onnx.dynamic_conv import load_graph
    from cliprl.engines.onnx.fp16 import to_fp16
    from cliprl.engines.onnx.quantize import products, quantize_graph

    yield "GPU f16", to_fp16(load_graph(bundle.encoder))
    for precision in EIGHT:
        for name, choice in (
            ("", {}),
            (", narrow layers too", {"least": 1}),
            (", grouped layers too", {"grouped": True, "least": 1}),
        ):
            model = load_graph(bundle.encoder)
            chosen = products(model, **choice)  # type: ignore[arg-type]
            yield f"GPU {precision}{name}", to_fp16(quantize_graph(model, precision, ranges, chosen))


def _running(engine: Any, bundle: Bundle) -> Encode:
    return lambda image: engine.run({"image": image[None], "text": bundle.embeddings})["logits"][0]


def _by_onnxruntime(model: Any, bundle: Bundle) -> Encode:
    try:
        import onnxruntime
    except ImportError as error:
        raise EngineError(f"onnxruntime can't be imported ({error}): pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    # No fusion: a fused operator would round in other places than the graph.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(["logits"], {"image": image[None], "text": bundle.embeddings})[0][0]


@measurement(
    "precisions",
    help="The share of labels that bf16, f16, int8 and fp8 keep, and which layers cost most (needs nncf and onnxruntime).",
    defaults=BenchJob("", rounds=1, seconds=0, warm_up=0),
    settings=("bundle",),
    clip=False,
)
def measure(
    session: ResultSession,
    job: BenchJob,
    log: LogFunction,
    sources: Annotated[list[str], typer.Argument(help="Videos or images to score on.")],
    calibrate: Annotated[list[str], typer.Option(help="Other videos or images to calibrate on; may be repeated.")],
    count: Annotated[int, typer.Option(min=1, help="Frames of each source.")] = 24,
) -> Result:
    """Score every variant on every source."""
    bundle = open_bundle(job.bundle)
    seen = {short_name(source): sample_frames(source, count, bundle) for source in sources}
    known = np.concatenate([sample_frames(source, count, bundle) for source in calibrate])
    exact = compile_engine(bundle.encoder, precision="f32", shapes=encoder_shapes(bundle))
    truth = {name: [_running(exact, bundle)(p).argmax(0) for p in images] for name, images in seen.items()}
    series = []
    with tempfile.TemporaryDirectory() as folder:
        for variant, encode in encoders(bundle, known, Path(folder) / "bundle"):
            log(variant)
            for name, images in seen.items():
                labels = (encode(image).argmax(0) for image in images)
                shares = [100 * float((one == other).mean()) for one, other in zip(labels, truth[name], strict=True)]
                series.append(Series.of(variant, name, "% of labels", [shares]))
            own = [s for s in series if s.case == variant]
            everything = [value for one in own for value in one.rounds[0]]
            series.append(Series.of(variant, "mean of all frames", "% of labels", [[float(np.mean(everything))]]))
    notes = [f"calibrated on {len(known)} frames of {', '.join(map(short_name, calibrate))}"]
    return session.result(series, METHOD, notes)
