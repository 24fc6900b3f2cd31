"""Engine bundles, the backends that run them, and the selection of a backend and precision."""

import cliprl.engines.cli.loading  # noqa: F401 - before all libraries
from cliprl.engines.backends.engine import Engine, Probe, ignore_message
from cliprl.engines.backends.registry import compile_engine, probe
from cliprl.engines.bundle.bundle import Bundle, naming_parts, open_bundle, seal_bundle
from cliprl.engines.bundle.confidence import ConfidenceSpec, DistanceSpec, LogisticSpec
from cliprl.engines.bundle.input_size import grid_scale, own_size, parse_size, size_of, size_text, with_input_size
from cliprl.engines.bundle.manifest import MAX_CLASSES, ClassSpec, Manifest, RegionSpec, RestorationSpec, TextSpec
from cliprl.engines.bundle.reference_outputs import add_reference
from cliprl.engines.bundle.text_encoder import TextEngine, ensemble
from cliprl.engines.cache.engine_cache import EngineCache
from cliprl.engines.cpu_count import available_cpus
from cliprl.engines.errors import BundleError, CliprlError, EngineError, UsageError, explained, first_fault, reason_of
from cliprl.engines.selection.engine_variant import CompiledBundle
from cliprl.engines.selection.load_engines import load_engines

__all__ = [
    "MAX_CLASSES",
    "Bundle",
    "BundleError",
    "ClassSpec",
    "CliprlError",
    "CompiledBundle",
    "ConfidenceSpec",
    "DistanceSpec",
    "Engine",
    "EngineCache",
    "EngineError",
    "LogisticSpec",
    "Manifest",
    "Probe",
    "RegionSpec",
    "RestorationSpec",
    "TextEngine",
    "TextSpec",
    "UsageError",
    "add_reference",
    "available_cpus",
    "compile_engine",
    "ensemble",
    "explained",
    "first_fault",
    "grid_scale",
    "ignore_message",
    "load_engines",
    "naming_parts",
    "open_bundle",
    "own_size",
    "parse_size",
    "probe",
    "reason_of",
    "seal_bundle",
    "size_of",
    "size_text",
    "with_input_size",
]
