"""Test whether plans of TensorRT for RTX for other GPUs run on this one; NVIDIA documents no data-center GPU."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np

from cliprl.engines import Bundle, EngineError
from cliprl.engines.backends.tensorrt.backend import make_engine_plan
from cliprl.engines.backends.tensorrt.build import PLAN_TARGETS
from cliprl.engines.backends.tensorrt.probe import probe_tensorrt
from cliprl.engines.bundle.reference_outputs import Reference, encoder_shapes, reference_of

RTX_PACKAGE = "tensorrt_rtx"
# A plan for no particular GPU.
PORTABLE = "every GPU"
MIN_AGREEMENT = 0.98


def portability(bundle: Bundle) -> list[str]:
    """Describe for each target whether its FP16 plan of the encoder loads and agrees with the reference, or why not."""
    if find_spec(RTX_PACKAGE) is None:
        return [f"plans for other GPUs were not tried: {RTX_PACKAGE} is not installed"]
    probe = probe_tensorrt(RTX_PACKAGE)
    if not probe.ready:
        return [f"plans for other GPUs were not tried: {probe.reason}"]
    reference = reference_of(bundle)
    return [f"a plan for {name} {_tried(bundle, name, reference)}" for name in (PORTABLE, *PLAN_TARGETS)]


def _tried(bundle: Bundle, target: str, reference: Reference) -> str:
    from cliprl.engines.backends.tensorrt.engine import TensorRtEngine

    try:
        plan = make_engine_plan(
            RTX_PACKAGE, bundle.encoder, "f16", encoder_shapes(bundle), None if target == PORTABLE else target
        )
        engine = TensorRtEngine(RTX_PACKAGE, plan.data, "f16", 1)
        found = engine.run({"image": reference.images[:1], "text": bundle.embeddings})["logits"]
    except EngineError as error:
        return f"does not run here: {error}"
    share = float(np.mean(found.cpu().numpy().argmax(1) == reference.base[:1].argmax(1)))
    return f"runs here, and is {'right' if share >= MIN_AGREEMENT else 'WRONG'}: {share:.1%} of labels agree"
