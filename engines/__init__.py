"""What runs a network: the engine bundle, the backends, and the choice between them."""

from cliprl.engines.bundle import Bundle, open_bundle, seal_bundle
from cliprl.engines.cache import EngineCache
from cliprl.engines.candidate import Pair
from cliprl.engines.engine import Engine, Probe, compile_engine, probe, silent
from cliprl.engines.errors import BundleError, CliprlError, EngineError, UsageError
from cliprl.engines.manifest import MAX_CLASSES, ClassSpec, Manifest, TextSpec
from cliprl.engines.processors import processors
from cliprl.engines.reference import add_reference
from cliprl.engines.serving import load_engines
from cliprl.engines.text import TextEngine, ensemble

__all__ = [
    "MAX_CLASSES",
    "Bundle",
    "BundleError",
    "ClassSpec",
    "CliprlError",
    "Engine",
    "EngineCache",
    "EngineError",
    "Manifest",
    "Pair",
    "Probe",
    "TextEngine",
    "TextSpec",
    "UsageError",
    "add_reference",
    "compile_engine",
    "ensemble",
    "load_engines",
    "open_bundle",
    "probe",
    "processors",
    "seal_bundle",
    "silent",
]
